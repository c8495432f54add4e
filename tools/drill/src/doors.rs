//! Doors before the members of groups, and what they are for: a member is cut off from everybody while it lives. Its own door
//! is shut, and at all others its calls are held back, known by the ports they come from: as the system has it, not by
//! anything a server says.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use sluice_launcher::{Doors, Service};
use tokio::time::sleep;

use crate::proxy::{Proxy, Trouble};

/// Between two looks at whose calls are whose; a call that comes waits for the second that begins after it.
const LOOK: Duration = Duration::from_millis(20);

/// As `/proc/net/tcp` has it.
const ESTABLISHED: &str = "01";

/// The doors of a cluster.
#[derive(Debug, Default)]
pub struct MemberDoors(Mutex<BTreeMap<(Service, usize), Vec<Proxy>>>);

impl Doors for MemberDoors {
    fn open(&self, service: Service, index: usize, port: u16) -> std::io::Result<u16> {
        let proxy = Proxy::open(format!("127.0.0.1:{port}"))?;
        let at = proxy.port();
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.entry((service, index)).or_default().push(proxy);
        Ok(at)
    }
}

impl MemberDoors {
    /// Cuts a member off for as long as `work` lasts. `pids`: its processes of now, asked again and again.
    pub async fn partition<T>(
        &self,
        member: (Service, usize),
        pids: impl Fn() -> Vec<u32>,
        work: impl Future<Output = T>,
    ) -> T {
        self.look(member, Some(&pids()));
        self.of(member, |proxy| proxy.trouble(Trouble::Cut));
        let done = match select(pin!(work), pin!(self.looks(member, &pids))).await {
            Either::Left((done, _)) => done,
            Either::Right((never, _)) => match never {},
        };
        self.of(member, Proxy::heal);
        self.look(member, None);
        done
    }

    /// Whether a member would be cut off from anybody: somebody has called it, or it has called somebody.
    #[must_use]
    pub fn is_connected(&self, member: (Service, usize), pids: &[u32]) -> bool {
        self.connections(member) > 0 || !ports_of(pids, |state| state == ESTABLISHED).is_empty()
    }

    /// Connections that lead to a member now.
    #[must_use]
    pub fn connections(&self, member: (Service, usize)) -> usize {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.get(&member).into_iter().flatten().map(Proxy::connections).sum()
    }

    async fn looks(&self, member: (Service, usize), pids: &impl Fn() -> Vec<u32>) -> Infallible {
        loop {
            sleep(LOOK).await;
            self.look(member, Some(&pids()));
        }
    }

    /// Holds back the calls of these processes at the doors of all others; `None`: of nobody any more.
    fn look(&self, member: (Service, usize), pids: Option<&[u32]>) {
        let callers = pids.map(|pids| Arc::new(ports_of(pids, |_| true)));
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, proxies) in doors.iter().filter(|(at, _)| **at != member) {
            proxies.iter().for_each(|proxy| proxy.cut_off(callers.clone()));
        }
    }

    fn of(&self, member: (Service, usize), each: impl Fn(&Proxy)) {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.get(&member).into_iter().flatten().for_each(each);
    }
}

/// Local ports of the TCP sockets that these processes have open, in such states.
fn ports_of(pids: &[u32], is_meant: impl Fn(&str) -> bool) -> HashSet<u16> {
    let files = pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let targets =
        files.flat_map(|files| files.flatten()).filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: HashSet<String> = targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    // `sl local:port remote:port state queues timer retransmits uid timeout inode …`
    let ports = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (local, state, inode) = (words.nth(1)?, words.nth(1)?, words.nth(5)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (is_meant(state) && sockets.contains(inode)).then_some(port)
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(300);
    const ONE: (Service, usize) = (Service::Etcd, 0);
    const OTHER: (Service, usize) = (Service::Etcd, 1);

    /// A server that says back what it hears, behind a door.
    async fn echo(doors: &MemberDoors, servers: &mut JoinSet<()>, (service, index): (Service, usize)) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        servers.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        doors.open(service, index, port).unwrap()
    }

    async fn is_answered(stream: &mut TcpStream, within: Duration) -> bool {
        stream.write_all(b"?").await.unwrap();
        timeout(within, stream.read_exact(&mut [0])).await.is_ok_and(|read| read.is_ok())
    }

    #[tokio::test]
    async fn a_member_is_cut_off_with_its_calls_and_all_others_go_on() {
        let doors = MemberDoors::default();
        let mut servers = JoinSet::new();
        let one = echo(&doors, &mut servers, ONE).await;
        let other = echo(&doors, &mut servers, OTHER).await;
        let dial = async |port: u16| TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut to_one, mut to_other) = (dial(one).await, dial(other).await);
        assert!(is_answered(&mut to_one, SOON).await && is_answered(&mut to_other, SOON).await);
        assert_eq!((doors.connections(ONE), doors.connections(OTHER)), (1, 1));
        assert!(doors.is_connected(ONE, &[]) && !doors.is_connected((Service::Nats, 0), &[]));
        assert!(doors.is_connected((Service::Nats, 0), &[std::process::id()]));

        // Nobody of ours is the first member: the way to the other is open, for old and new calls.
        let stranger = || Vec::new();
        doors
            .partition(ONE, stranger, async {
                assert!(!is_answered(&mut to_one, NEVER).await);
                assert!(is_answered(&mut to_other, SOON).await);
                assert!(is_answered(&mut dial(other).await, SOON).await);
            })
            .await;
        timeout(SOON, to_one.read_exact(&mut [0])).await.unwrap().unwrap();

        // We are the first member: no way out either, and a call that begins now comes nowhere.
        let own = || vec![std::process::id()];
        let mut late = doors
            .partition(ONE, own, async {
                assert!(!is_answered(&mut to_other, NEVER).await);
                let mut late = dial(other).await;
                assert!(!is_answered(&mut late, NEVER).await);
                late
            })
            .await;
        for stream in [&mut to_other, &mut late] {
            timeout(SOON, stream.read_exact(&mut [0])).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_member_said_before_it_hung_up_is_held_back_too() {
        let doors = MemberDoors::default();
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let door = doors.open(OTHER.0, OTHER.1, server.local_addr().unwrap().port()).unwrap();
        let own = || vec![std::process::id()];
        doors
            .partition(ONE, own, async {
                let mut call = TcpStream::connect(("127.0.0.1", door)).await.unwrap();
                call.write_all(b"?").await.unwrap();
                assert!(timeout(NEVER, server.accept()).await.is_err());
                drop(call);
                assert!(timeout(NEVER, server.accept()).await.is_err());
            })
            .await;
        timeout(SOON, server.accept()).await.unwrap().unwrap();
    }
}
