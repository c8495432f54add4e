//! The way to etcd: a client made by the first call, and made anew when files of the section have changed. They are read
//! again where a call has failed, which is when a password or a certificate that was replaced is missed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::access::Access;
use super::error::{RegistryError, Result};
use crate::Etcd;

/// Longest wait for an answer. A third of the shortest useful lease time.
const ANSWER: Duration = Duration::from_secs(1);
/// A connection is dead when it does not answer a ping for as long.
const PING: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    etcd: Etcd,
    current: Mutex<Current>,
    /// A call has failed since the files were read.
    failed: AtomicBool,
}

/// What is connected with, and the client if there is one.
#[derive(Clone)]
struct Current {
    access: Access,
    /// Made by the first call: who has to say who he is needs a server that answers.
    client: Arc<OnceCell<Client>>,
}

impl Current {
    fn new(access: Access) -> Self {
        Self { access, client: Arc::default() }
    }
}

impl Connection {
    /// Connects with the first call.
    ///
    /// # Errors
    /// An endpoint that is no URL, or a file of the section that cannot be used.
    pub(super) async fn open(etcd: &Etcd) -> Result<Self> {
        let access = Access::read(etcd)?;
        // Without a user it connects to nobody yet, and finds an endpoint that is none.
        Client::connect(etcd.urls(), Some(access.put_tls_into(options()))).await?;
        let current = Mutex::new(Current::new(access));
        Ok(Self { etcd: etcd.clone(), current, failed: AtomicBool::new(false) })
    }

    pub(super) fn has_several_endpoints(&self) -> bool {
        self.etcd.endpoints.len() > 1
    }

    /// The client for the next call.
    pub(super) async fn client(&self) -> Result<Client> {
        if self.failed.swap(false, Ordering::Relaxed) {
            self.read_again().await;
        }
        let Current { access, client } = self.current();
        let connect = || Client::connect(self.etcd.urls(), Some(access.put_into(options())));
        self.answer(client.get_or_try_init(connect)).await.cloned()
    }

    /// Bounds a call, and tells a lost lease from all else.
    pub(super) async fn answer<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
        let error = match timeout(ANSWER, call).await {
            Ok(Ok(value)) => return Ok(value),
            // The client says it in words, the server (tonic's NotFound) too.
            // By text: the client has no error kind for it.
            Ok(Err(error)) if error.to_string().contains("lease not found") => {
                return Err(RegistryError::LeaseGone);
            }
            Ok(Err(error)) => RegistryError::Etcd(error),
            // A server that does not want a certificate any more looks like one that is away.
            Err(_) => RegistryError::Timeout,
        };
        self.failed.store(true, Ordering::Relaxed);
        Err(error)
    }

    async fn read_again(&self) {
        let etcd = self.etcd.clone();
        // A file may lie on a disk that hangs. One that cannot be read is half replaced: it is read at the next failure.
        let read = timeout(ANSWER, spawn_blocking(move || Access::read(&etcd))).await;
        let Ok(Ok(Ok(access))) = read else { return };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.access != access {
            *current = Current::new(access);
            tracing::info!("The files of etcd are new: it is connected to with them.");
        }
    }

    fn current(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .with_connect_timeout(ANSWER)
        .with_keep_alive(PING, PING)
        .with_keep_alive_while_idle(true)
        // A member cut off from its leader must not answer from what it remembers.
        .with_require_leader(true)
}
