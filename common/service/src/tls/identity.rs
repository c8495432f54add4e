//! The identity of a running service: its credentials, read again when their files change. What is connected goes on
//! with what it was connected with.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use super::credentials::Pem;
use super::notice::notice;
use super::{BadCredentials, Credentials, Role, Roles, Tls};

/// Files are looked at this often: certificates are replaced days before they end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whoever is refused has so long to hear it.
const LINGER: Duration = Duration::from_millis(250);

/// Who a service is to the others; clones share it.
#[derive(Clone)]
pub struct Identity(Arc<Current>);

struct Current {
    files: Tls,
    role: Role,
    credentials: watch::Sender<Arc<Credentials>>,
    /// What was read at the last look and is not in force.
    seen: Mutex<Option<Result<Pem, BadCredentials>>>,
    /// The same, once its fault was said.
    said: Mutex<Option<Result<Pem, BadCredentials>>>,
    /// What was said last of the certificate's end.
    end_said: Mutex<Option<String>>,
}

impl Identity {
    /// Reads the files; `None` when none are named.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn load(files: &Tls, role: Role) -> Result<Option<Self>, BadCredentials> {
        if !files.is_on() {
            return Ok(None);
        }
        Ok(Some(Self::with(Credentials::load(files, role)?, files.clone(), role)))
    }

    /// Of PEM texts that no file has, as the parts of one process make them for each other. Nothing is followed.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn of_process(ca: &str, cert: &str, key: &str, role: Role) -> Result<Self, BadCredentials> {
        let none = Tls::default();
        Ok(Self::with(Credentials::of(Pem::of(ca, cert, key), &none, role)?, none, role))
    }

    fn with(credentials: Credentials, files: Tls, role: Role) -> Self {
        let credentials = watch::Sender::new(Arc::new(credentials));
        let (seen, said, end_said) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Current { files, role, credentials, seen, said, end_said }))
    }

    /// The service it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Whether it is of files, which may be replaced.
    pub(super) fn has_files(&self) -> bool {
        self.0.files.is_on()
    }

    /// Looks at the files until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let identity = self.clone();
            // A file may lie on a disk that hangs.
            let _ = tokio::task::spawn_blocking(move || identity.look()).await;
        }
    }

    /// How long others will believe the certificate in force.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.now().left()
    }

    /// One look at the files, and at the end of the certificate in force.
    pub fn look(&self) {
        self.take_new();
        self.say_end();
    }

    /// Says each day, and on the last one each hour, that the certificate ends.
    fn say_end(&self) {
        let notice = notice(self.left());
        let mut said = self.0.end_said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said == notice {
            return;
        }
        if let Some(notice) = &notice {
            let file = &self.0.files.cert;
            tracing::warn!(
                file,
                "The certificate of tls.cert {notice}, and then no service takes a connection from this one: renew it, for \
                 example with `sluice certs --dir certs --renew`. The file is read again by itself."
            );
        }
        *said = notice;
    }

    /// Takes what is new and good, and was the same at the look before. Files are replaced one
    /// after the other, and a key that does not yet belong to its certificate is no fault.
    fn take_new(&self) {
        let read = Pem::read(&self.0.files);
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if read.as_ref().is_ok_and(|pem| pem == self.0.credentials.borrow().pem()) {
            *seen = None;
            return;
        }
        if seen.as_ref() != Some(&read) {
            *seen = Some(read);
            return;
        }
        let taken = read.clone().and_then(|pem| Credentials::of(pem, &self.0.files, self.0.role));
        match taken {
            Ok(credentials) => {
                self.0.credentials.send_replace(Arc::new(credentials));
                *seen = None;
                tracing::info!("The files of tls are new: connections from now on are made with them.");
            }
            Err(error) => self.keep_old(read, &error),
        }
    }

    /// Says once for each content that it is of no use.
    fn keep_old(&self, read: Result<Pem, BadCredentials>, error: &BadCredentials) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != Some(&read) {
            tracing::warn!(%error, "The files of tls have changed and cannot be used: the old ones stay in force.");
            *said = Some(read);
        }
    }

    fn now(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.credentials.borrow())
    }

    /// The server's half of a handshake, and which services the other end is.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<(TlsStream<TcpStream>, Roles)> {
        let accepted = TlsAcceptor::from(self.now().server()).accept(tcp).into_fallible().await;
        let stream = match accepted {
            Ok(stream) => stream,
            Err((error, tcp)) => {
                linger(tcp).await;
                return Err(error);
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let roles = certificate.map_or_else(|| Roles(Vec::new()), Roles::of);
        Ok((stream.into(), roles))
    }

    /// The client's half: the other end has to be a `peer`.
    pub(crate) async fn connect(&self, tcp: TcpStream, peer: Role) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.now().client());
        Ok(connector.connect(peer.server_name(), tcp).await?.into())
    }
}

/// Ends a connection so that the other end hears why: closed with something unread, the system would take our last
/// word back.
async fn linger(mut tcp: TcpStream) {
    let rest = async {
        tcp.shutdown().await?;
        let mut unread = [0; 4096];
        while tcp.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, rest).await;
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.0.role)
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}
