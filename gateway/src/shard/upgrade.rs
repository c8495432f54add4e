//! The first seconds of a client: its request is read under a deadline, judged, answered, and what is
//! admitted becomes a connection of the shard.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::shared::Shared;
use super::turn::ShardCell;
use crate::defaults::{HANDSHAKE_WITHIN, LINGER_WITHIN};
use crate::handshake::{Names, Verdict, judge};

/// A socket whose upgrade was answered.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    pub(super) token: Option<String>,
    /// Frames that came together with the request.
    pub(super) rest: Vec<u8>,
}

/// Serves the upgrade of one client. The place it takes among the connections is given back unless it is admitted.
pub(super) async fn serve(cell: ShardCell, shared: Arc<Shared>, socket: StdStream) {
    let upgraded = timeout(HANDSHAKE_WITHIN, handshake(&shared, socket)).await;
    match upgraded {
        Ok(Ok(Some(admitted))) => {
            shared.metrics.accepted.inc();
            super::Shard::admit(&cell, admitted);
        }
        Ok(Ok(None) | Err(_)) | Err(_) => {
            shared.metrics.refused.inc();
            shared.stats.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

async fn handshake(shared: &Arc<Shared>, socket: StdStream) -> io::Result<Option<Upgraded>> {
    let mut stream = TcpStream::from_std(socket)?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let config = &shared.config;
        let names = Names { origins: &config.origins, hosts: &config.hosts };
        match judge(&bytes, shared.admission(), names) {
            Verdict::More => {}
            Verdict::Refuse { response, status, why } => {
                let from = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |from| from.to_string());
                tracing::info!(from, status, why, "An upgrade was refused.");
                stream.write_all(&response).await?;
                SockRef::from(&stream).shutdown(std::net::Shutdown::Write)?;
                drop(timeout(LINGER_WITHIN, until_end(&mut stream)).await);
                return Ok(None);
            }
            Verdict::Accept { response, token, used } => {
                stream.write_all(&response).await?;
                let rest = bytes.split_off(used);
                return Ok(Some(Upgraded { stream, token, rest }));
            }
        }
    }
}

/// Reads to the end, so that the refusal is not overtaken by a reset.
async fn until_end(stream: &mut TcpStream) {
    let mut waste = [0; 512];
    while matches!(stream.read(&mut waste).await, Ok(count) if count > 0) {}
}
