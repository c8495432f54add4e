//! Every limit of the launcher, with its arithmetic. No configuration is read here.

use std::time::Duration;

/// A server of its own (PostgreSQL's `initdb` included) is up within this, also on a busy machine.
pub(crate) const STORE_READY: Duration = Duration::from_secs(60);
/// A service answers `/readyz` with 200 within this: migrations, etcd lease and first heads included.
pub(crate) const SERVICE_READY: Duration = Duration::from_secs(30);
/// A stopped service is killed after this: its own total of 8 s, its watchdog's margin, and slack for a busy machine.
pub(crate) const SERVICE_STOP: Duration = Duration::from_secs(12);
/// A stopped store is killed after this; none has clients left when it is asked.
pub(crate) const STORE_STOP: Duration = Duration::from_secs(10);
/// A member of Patroni is up within this, and follows: it copies all that the primary holds.
pub(crate) const PATRONI_READY: Duration = Duration::from_secs(180);
/// A stopped member of Patroni is killed after this: its primary waits until a standby has all it wrote.
pub(crate) const PATRONI_STOP: Duration = Duration::from_secs(30);
/// A switchover is over within this.
pub(crate) const SWITCHOVER: Duration = Duration::from_secs(30);
/// A PostgreSQL whose Patroni is gone has this long to end at once, before it is killed.
pub(crate) const POSTMASTER_STOP: Duration = Duration::from_secs(2);
/// What a killed launcher left has this long to end after its signal, before it is killed: PostgreSQL ends its sessions.
pub(crate) const LEFT_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at something that becomes ready: short, because every test waits for it.
pub(crate) const POLL: Duration = Duration::from_millis(25);
/// One look at something that becomes ready.
pub(crate) const PROBE: Duration = Duration::from_secs(1);
/// Largest answer of an admin page that is read, bytes.
pub(crate) const PROBE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest line a service may print about itself, bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 16 * 1024;
/// How much of a log is quoted when its process fails, bytes.
pub(crate) const LOG_TAIL_BYTES: u64 = 2_000;
/// Events kept for a reader that is behind; a cluster has dozens of children, not hundreds.
pub(crate) const EVENTS: usize = 1_024;
/// How long a start command waits to see the process die that it is meant to replace (a kill takes milliseconds).
pub(crate) const REPLACE_LOOK: Duration = Duration::from_millis(500);
/// A replacement gateway waits this long for its client port: its predecessor may be draining (8 s) still.
pub(crate) const PORT_FREE: Duration = Duration::from_secs(15);
/// First and longest pause before `--restart` starts a child again; doubled while it keeps dying young.
pub(crate) const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A child that lived this long did not die young.
pub(crate) const RESTART_SETTLED: Duration = Duration::from_secs(10);
/// Ports are taken from here: below the range (32768…) the kernel hands to outgoing connections and to port 0, so that
/// nobody takes the port of a server while it is down.
pub(crate) const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Random ports tried before giving up.
pub(crate) const PORT_TRIES: usize = 200;
/// Starts of a store on ever new ports before giving up.
pub(crate) const STORE_TRIES: usize = 3;
/// PostgreSQL's connection limit: 16 lanes, a read pool and a probe for each of a dozen logics.
pub(crate) const POSTGRES_CONNECTIONS: u32 = 400;
