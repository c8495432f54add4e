//! A TCP proxy that can be told to be a bad network. It copies bytes and understands none of them.
//!
//! A cut holds bytes back like lost packets that are sent again: when it heals, connections that did not give up go on.
//! A half-open link swallows them: when it heals, whoever still uses such a connection is told by a reset.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Bytes moved at once.
const CHUNK: usize = 16 * 1024;
/// How long a slow link takes for each chunk: 50 ms away, 320 KiB a second.
const SLOW: Duration = Duration::from_millis(50);
/// Pause after an accept that failed, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nothing passes, in neither direction; nobody is told.
    Cut,
    /// What the caller sends does not arrive; answers do.
    CutRequests,
    /// Answers do not arrive.
    CutAnswers,
    /// Bytes are lost and nobody is told.
    Swallow,
    /// Bytes take their time.
    Slow,
    /// Connections are reset, new ones too.
    Reset,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cut, Self::CutRequests, Self::CutAnswers, Self::Swallow, Self::Slow, Self::Reset];
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::CutRequests => "cut requests",
            Self::CutAnswers => "cut answers",
            Self::Swallow => "half-open",
            Self::Slow => "slow",
            Self::Reset => "reset",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// What happens to a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pass,
    Hold,
    Swallow,
    Slow,
    Reset,
}

fn flow(trouble: Option<Trouble>, direction: Direction) -> Flow {
    match (trouble, direction) {
        (None, _)
        | (Some(Trouble::CutRequests), Direction::Answer)
        | (Some(Trouble::CutAnswers), Direction::Request) => Flow::Pass,
        (Some(Trouble::Cut | Trouble::CutRequests | Trouble::CutAnswers), _) => Flow::Hold,
        (Some(Trouble::Swallow), _) => Flow::Swallow,
        (Some(Trouble::Slow), _) => Flow::Slow,
        (Some(Trouble::Reset), _) => Flow::Reset,
    }
}

/// A listening proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Wire>,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Wire {
    upstream: String,
    condition: watch::Sender<Condition>,
    open: AtomicUsize,
}

/// What is wrong with a link, and for whom.
#[derive(Debug, Clone, Default)]
struct Condition {
    trouble: Option<Trouble>,
    /// Ports of callers of whom nothing passes, where somebody is cut off.
    cut_off: Option<Arc<HashSet<u16>>>,
    /// How often it was looked who they are.
    looks: u64,
}

/// The condition as one caller has it.
struct Watch {
    condition: watch::Receiver<Condition>,
    caller: u16,
    /// Looks that had begun when it came.
    began: u64,
    is_cut_off: bool,
}

impl Watch {
    fn of(wire: &Wire, caller: u16) -> Self {
        let condition = wire.condition.subscribe();
        let began = condition.borrow().looks;
        Self { condition, caller, began, is_cut_off: false }
    }

    /// A caller of whom it is not known yet whether he is cut off waits, as if he was. Who was found to be stays so: once he
    /// has hung up the system no longer says whose call it was, and what he had said would pass.
    fn now(&mut self) -> Option<Trouble> {
        let condition = self.condition.borrow_and_update();
        let Some(callers) = &condition.cut_off else {
            self.is_cut_off = false;
            return condition.trouble;
        };
        self.is_cut_off |= callers.contains(&self.caller);
        let is_known = condition.looks >= self.began + 2;
        if self.is_cut_off || !is_known { Some(Trouble::Cut) } else { condition.trouble }
    }

    async fn changed(&mut self) -> Result<(), Broken> {
        self.condition.changed().await.map_err(|_| Broken)
    }
}

/// The connection must end with a reset.
struct Broken;

impl Proxy {
    /// Listens on a free loopback port and leads to `upstream`, `host:port`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(upstream: impl Into<String>) -> std::io::Result<Self> {
        Self::open(upstream)
    }

    /// The same for who cannot wait; inside a runtime.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn open(upstream: impl Into<String>) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (condition, open) = (watch::Sender::default(), AtomicUsize::new(0));
        let wire = Wire { upstream: upstream.into(), condition, open };
        let link = Arc::new(wire);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&link)));
        Ok(Self { address, link, _accepting: accepting })
    }

    /// Where it listens, `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port of that.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that lead through it now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.link.open.load(Ordering::Relaxed)
    }

    /// Begins to be bad.
    pub fn trouble(&self, trouble: Trouble) {
        self.link.condition.send_modify(|condition| condition.trouble = Some(trouble));
    }

    /// Nothing passes of those who call from these ports; `None`: nobody is cut off any more.
    pub fn cut_off(&self, callers: Option<Arc<HashSet<u16>>>) {
        self.link.condition.send_modify(|condition| {
            condition.cut_off = callers;
            condition.looks += 1;
        });
    }

    /// Is good again.
    pub fn heal(&self) {
        self.link.condition.send_modify(|condition| condition.trouble = None);
    }
}

async fn accept(listener: TcpListener, link: Arc<Wire>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(serve(stream, from.port(), Arc::clone(&link)));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

async fn serve(mut client: TcpStream, caller: u16, link: Arc<Wire>) {
    link.open.fetch_add(1, Ordering::Relaxed);
    let server = match dial(&mut client, caller, &link).await {
        Ok(mut server) => carry(&mut client, &mut server, caller, &link).await.map_err(|Broken| Some(server)),
        Err(Broken) => Err(None),
    };
    link.open.fetch_sub(1, Ordering::Relaxed);
    if let Err(server) = server {
        // dropped with zero linger, a socket says RST
        for stream in [Some(client), server].into_iter().flatten() {
            stream.set_zero_linger().ok();
        }
    }
}

/// A connection that begins in trouble waits for its end, like a SYN that gets no answer.
async fn dial(client: &mut TcpStream, caller: u16, link: &Wire) -> Result<TcpStream, Broken> {
    let mut watch = Watch::of(link, caller);
    // Read and thrown away: a caller that cannot send would notice.
    let mut lost = vec![0; CHUNK];
    loop {
        let now = watch.now();
        match flow(now, Direction::Request) {
            Flow::Pass => break,
            Flow::Slow => {
                sleep(SLOW).await;
                break;
            }
            Flow::Reset => return Err(Broken),
            Flow::Hold => watch.changed().await?,
            Flow::Swallow => {
                tokio::select! {
                    changed = watch.changed() => changed?,
                    read = client.read(&mut lost) => match read {
                        Ok(1..) => {}
                        _ => watch.changed().await?,
                    },
                }
                if watch.now() != now {
                    return Err(Broken); // it has waited in vain, and perhaps said something
                }
            }
        }
    }
    let server = TcpStream::connect(&link.upstream).await.map_err(|_| Broken)?;
    server.set_nodelay(true).ok();
    client.set_nodelay(true).ok();
    Ok(server)
}

async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    caller: u16,
    link: &Wire,
) -> Result<(), Broken> {
    let spoilt = AtomicBool::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests = pump(from_client, to_server, Direction::Request, Watch::of(link, caller), &spoilt);
    let answers = pump(from_server, to_client, Direction::Answer, Watch::of(link, caller), &spoilt);
    tokio::try_join!(requests, answers).map(|((), ())| ())
}

/// Moves bytes one way until their end.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut watch: Watch,
    spoilt: &AtomicBool,
) -> Result<(), Broken> {
    let mut chunk = vec![0; CHUNK];
    loop {
        // Before reading: what is held back should fill the buffers of the sender, not ours.
        passable(direction, &mut watch, spoilt).await?;
        let read = tokio::select! {
            biased;
            changed = watch.changed() => {
                changed?;
                continue;
            }
            read = from.read(&mut chunk) => read.map_err(|_| Broken)?,
        };
        // what was read while a cut began waits here
        let flow = loop {
            let flow = passable(direction, &mut watch, spoilt).await?;
            // the end is news as well, and is lost like news
            if flow == Flow::Swallow && read == 0 {
                watch.changed().await?;
                continue;
            }
            break flow;
        };
        if flow == Flow::Slow {
            sleep(SLOW).await;
        }
        if flow == Flow::Swallow {
            spoilt.store(true, Ordering::Relaxed);
        } else if read == 0 {
            return to.shutdown().await.map_err(|_| Broken);
        } else {
            to.write_all(&chunk[..read]).await.map_err(|_| Broken)?;
        }
    }
}

/// Waits while bytes are held back; says what happens to them now.
async fn passable(direction: Direction, watch: &mut Watch, spoilt: &AtomicBool) -> Result<Flow, Broken> {
    loop {
        let flow = flow(watch.now(), direction);
        match flow {
            Flow::Reset => return Err(Broken),
            Flow::Swallow => return Ok(flow),
            // Something in the middle is missing: bytes that follow would be taken for it.
            Flow::Pass | Flow::Slow if spoilt.load(Ordering::Relaxed) => return Err(Broken),
            Flow::Pass | Flow::Slow => return Ok(flow),
            Flow::Hold => watch.changed().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    /// Long enough for loopback to have delivered what it is going to deliver.
    const NEVER: Duration = Duration::from_millis(150);

    /// A proxy before a server, and a connection through it.
    async fn pair() -> (Proxy, TcpListener, TcpStream, TcpStream) {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap().to_string()).await.unwrap();
        let near = TcpStream::connect(proxy.address()).await.unwrap();
        let (far, _) = server.accept().await.unwrap();
        (proxy, server, near, far)
    }

    async fn says(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
        from.write_all(text.as_bytes()).await.unwrap();
        hears(to, text).await;
    }

    async fn hears(to: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        timeout(SOON, to.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    async fn hears_nothing(to: &mut TcpStream) {
        assert!(timeout(NEVER, to.read(&mut [0; 1])).await.is_err());
    }

    #[tokio::test]
    async fn bytes_and_ends_pass() {
        let (proxy, _server, mut near, mut far) = pair().await;
        says(&mut near, &mut far, "ping").await;
        says(&mut far, &mut near, "pong").await;
        assert_eq!(proxy.connections(), 1);
        near.shutdown().await.unwrap();
        assert_eq!(timeout(SOON, far.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
        says(&mut far, &mut near, "last words").await;
    }

    #[tokio::test]
    async fn a_cut_holds_both_ways_and_loses_nothing() {
        let (proxy, server, mut near, mut far) = pair().await;
        proxy.trouble(Trouble::Cut);
        near.write_all(b"one").await.unwrap();
        far.write_all(b"two").await.unwrap();
        hears_nothing(&mut far).await;
        hears_nothing(&mut near).await;
        let mut late = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(NEVER, server.accept()).await.is_err(), "nothing new arrives either");
        proxy.heal();
        hears(&mut far, "one").await;
        hears(&mut near, "two").await;
        let (mut far, _) = timeout(SOON, server.accept()).await.unwrap().unwrap();
        says(&mut late, &mut far, "three").await;
    }

    #[tokio::test]
    async fn a_cut_may_be_one_way() {
        let (proxy, _server, mut near, mut far) = pair().await;
        proxy.trouble(Trouble::CutRequests);
        near.write_all(b"ask").await.unwrap();
        hears_nothing(&mut far).await;
        says(&mut far, &mut near, "answer").await;
        proxy.trouble(Trouble::CutAnswers);
        hears(&mut far, "ask").await;
        far.write_all(b"answer").await.unwrap();
        hears_nothing(&mut near).await;
        proxy.heal();
        hears(&mut near, "answer").await;
    }

    #[tokio::test]
    async fn a_half_open_link_loses_bytes_and_resets_when_it_heals() {
        let (proxy, server, mut near, mut far) = pair().await;
        proxy.trouble(Trouble::Swallow);
        near.write_all(b"lost").await.unwrap();
        hears_nothing(&mut far).await;
        hears_nothing(&mut near).await;
        let mut late = TcpStream::connect(proxy.address()).await.unwrap();
        late.write_all(b"lost too").await.unwrap();
        assert!(timeout(NEVER, server.accept()).await.is_err());
        proxy.heal();
        for stream in [&mut near, &mut far, &mut late] {
            assert!(timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().is_err(), "a reset");
        }
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        says(&mut again, &mut far, "hello").await;
    }

    #[tokio::test]
    async fn who_said_nothing_over_a_half_open_link_lives_on() {
        let (proxy, _server, mut near, mut far) = pair().await;
        proxy.trouble(Trouble::Swallow);
        hears_nothing(&mut far).await;
        proxy.heal();
        says(&mut near, &mut far, "hello").await;
    }

    #[tokio::test]
    async fn resets_and_slowness_are_what_they_say() {
        let (proxy, _server, mut near, mut far) = pair().await;
        proxy.trouble(Trouble::Slow);
        let start = tokio::time::Instant::now();
        says(&mut near, &mut far, "slowly").await;
        assert!(start.elapsed() >= SLOW);
        proxy.trouble(Trouble::Reset);
        for stream in [&mut near, &mut far] {
            assert!(timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().is_err(), "a reset");
        }
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!matches!(timeout(SOON, refused.read(&mut [0; 1])).await.unwrap(), Ok(1..)));
    }
}
