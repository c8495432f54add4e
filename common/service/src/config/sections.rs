//! The sections that services have in common, and what in each contradicts itself. Keys as in the file.
//!
//! Where services differ in a default, the service's own `Default` names it ([`Admin::at`], [`Grpc::at`]):
//! [`load`](super::load) lays what is configured over that, key by key.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_lifecycle::{Plan, Stage};

use super::Address;
use crate::telemetry::Format;
use crate::tls::Tls;

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where health, status and metrics are, HTTP.
    pub listen: Address,
    /// File with the bearer token that is needed for anything but reading; "" = none.
    pub token_file: String,
}

impl Admin {
    /// On a port of this machine.
    #[must_use]
    pub fn at(port: u16) -> Self {
        Self { listen: Address::local(port), token_file: String::new() }
    }

    /// The bearer token, if a file names one.
    ///
    /// # Errors
    /// The file cannot be read, or holds none.
    pub fn token(&self) -> Result<Option<Arc<str>>, String> {
        if self.token_file.is_empty() {
            return Ok(None);
        }
        let token = sluice_access::secret("admin.token_file", &self.token_file)?;
        if token.trim().is_empty() {
            return Err(format!(
                "admin.token_file {:?} is empty: `openssl rand -hex 32` makes a token",
                self.token_file
            ));
        }
        Ok(Some(token.trim().into()))
    }
}

/// `[grpc]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where other services' calls are taken.
    pub listen: Address,
    /// `host:port` under which others reach it; empty: the address it is bound to.
    pub advertise: String,
    /// Whether others than this machine may reach it although nobody has to show who they are (`[tls]` is empty).
    pub insecure: bool,
}

impl Grpc {
    /// On a port of this machine.
    #[must_use]
    pub fn at(port: u16) -> Self {
        Self { listen: Address::local(port), ..Self::default() }
    }

    /// What others would read is an address that leads nowhere, or strangers would be let in.
    pub fn check(&self, tls: &Tls) -> impl Iterator<Item = String> {
        let Self { listen, advertise, .. } = self;
        let bad = (!advertise.is_empty()).then(|| advertise.parse::<Address>().err()).flatten();
        let bad = bad.map(|error| format!("grpc.advertise: {error}"));
        let nowhere = (advertise.is_empty() && listen.is_unspecified()).then(|| {
            format!("grpc.listen is {listen}, which others cannot dial: set grpc.advertise to this machine's host:port")
        });
        let open = (self.is_open(tls) && !self.insecure).then(|| {
            format!(
                "grpc.listen is {listen}, where whoever reaches it could be any service: set tls.ca, tls.cert and \
                 tls.key (`sluice certs --dir certs` makes them), or grpc.insecure = true where the network keeps others out"
            )
        });
        bad.into_iter().chain(nowhere).chain(open)
    }

    /// What strangers may do, where they may.
    #[must_use]
    pub fn warning(&self, tls: &Tls) -> Option<String> {
        let listen = &self.listen;
        (self.is_open(tls) && self.insecure).then(|| {
            format!(
                "WHOEVER REACHES {listen} CAN BE ANY SERVICE, and so publish and read as any user: grpc.insecure is \
                 set, and tls.ca, tls.cert and tls.key are not. `sluice certs --dir certs` makes them."
            )
        })
    }

    /// Whether others than this machine reach it and need not say who they are.
    fn is_open(&self, tls: &Tls) -> bool {
        !tls.is_on() && !self.listen.is_loopback()
    }
}

/// `[logic]` and `[gateway]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seeds {
    /// gRPC addresses (`host:port`) to use while etcd is away.
    pub seeds: Vec<String>,
}

impl Seeds {
    /// What is no address, under this key.
    pub fn check(&self, key: &str) -> impl Iterator<Item = String> {
        self.seeds.iter().filter_map(move |seed| Some(format!("{key}: {}", seed.parse::<Address>().err()?)))
    }
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Milliseconds from the signal to the end of the process.
    pub total_ms: u64,
    /// When the platform kills (`TimeoutStopSec`, `stop_grace_period`, …), milliseconds; 0 = unknown.
    pub kill_after_ms: u64,
    /// How long each stage may take at most.
    pub stages: StageTimes,
}

/// `[shutdown.stages]`, milliseconds. What a stage does not use is passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageTimes {
    /// Balancers and peers learn that this process is leaving.
    pub not_ready_ms: u64,
    /// Clients and peers are told; nothing new is accepted.
    pub notify_ms: u64,
    /// What was accepted gets its outcome; clients leave.
    pub drain_ms: u64,
    /// Data that is owed to others leaves.
    pub flush_ms: u64,
    /// Leases, pools and connections are given back.
    pub release_ms: u64,
    /// The admin page closes; 0: what remains of the total.
    pub gone_ms: u64,
}

impl StageTimes {
    /// In the order of the stop, with the key of each.
    #[must_use]
    pub const fn all(&self) -> [(Stage, &'static str, u64); 6] {
        [
            (Stage::NotReady, "not_ready_ms", self.not_ready_ms),
            (Stage::Notify, "notify_ms", self.notify_ms),
            (Stage::Drain, "drain_ms", self.drain_ms),
            (Stage::Flush, "flush_ms", self.flush_ms),
            (Stage::Release, "release_ms", self.release_ms),
            (Stage::Gone, "gone_ms", self.gone_ms),
        ]
    }

    /// All of them together.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.all().iter().fold(0, |sum, (_, _, ms)| sum.saturating_add(*ms))
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::with(StageTimes::default())
    }
}

impl Shutdown {
    /// The usual total with the stages of a service.
    #[must_use]
    pub fn with(stages: StageTimes) -> Self {
        let total = sluice_lifecycle::TOTAL_DEFAULT;
        Self { total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX), kill_after_ms: 0, stages }
    }

    /// The stop as data; its first stage takes `besides_ms` more.
    #[must_use]
    pub fn plan(&self, besides_ms: u64) -> Plan {
        self.stages.all().into_iter().fold(Plan::new(self.total()), |plan, (stage, _, ms)| {
            let ms = match stage {
                Stage::NotReady => ms.saturating_add(besides_ms),
                // Nothing comes behind it.
                Stage::Gone if ms == 0 => self.total_ms,
                Stage::Starting
                | Stage::Ready
                | Stage::Notify
                | Stage::Drain
                | Stage::Flush
                | Stage::Release
                | Stage::Gone => ms,
            };
            plan.stage(stage, Duration::from_millis(ms))
        })
    }

    /// A stage is shorter than what it does takes, or all of them, with `besides_ms`, are longer than the total.
    pub fn check(&self, min: &StageTimes, besides_ms: u64) -> impl Iterator<Item = String> {
        let short = self.stages.all().into_iter().zip(min.all()).filter(|((.., ms), (.., min))| ms < min);
        let short = short.map(|((_, key, ms), (.., min))| {
            format!("shutdown.stages.{key} is {ms}, at least {min} are needed for what the stage waits for")
        });
        let (total, needed) = (self.total_ms, self.stages.sum_ms().saturating_add(besides_ms));
        let long = (total < needed).then(|| {
            format!(
                "shutdown.total_ms is {total}, shutdown.stages need {needed} together: raise shutdown.total_ms and the \
                 kill timer of the platform, or lower a stage"
            )
        });
        short.collect::<Vec<_>>().into_iter().chain(long)
    }

    /// The time for the whole stop.
    #[must_use]
    pub const fn total(&self) -> Duration {
        Duration::from_millis(self.total_ms)
    }

    /// When the platform kills, if that is known.
    #[must_use]
    pub fn kill_after(&self) -> Option<Duration> {
        (self.kill_after_ms > 0).then(|| Duration::from_millis(self.kill_after_ms))
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (text on a terminal, else JSON), `json`, `text`.
    pub format: Format,
    /// A filter in the syntax of `RUST_LOG`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(Grpc::at(7070).check(&Tls::default()).count(), 0);
        assert_eq!(Shutdown::default().check(&StageTimes::default(), 0).count(), 0);
        assert_eq!(Shutdown::default().kill_after(), None);
    }

    #[test]
    fn contradictions_are_named() {
        let listen: Address = "0.0.0.0:7070".parse().expect("an address");
        let grpc = Grpc { listen, insecure: true, ..Grpc::default() };
        let wrong = |grpc: &Grpc| grpc.check(&Tls::default()).collect::<Vec<_>>();
        assert!(wrong(&grpc).len() == 1 && wrong(&grpc)[0].contains("grpc.advertise"));
        assert!(wrong(&Grpc { advertise: "logic-0:7070".into(), ..grpc }).is_empty());
    }

    #[test]
    fn strangers_are_let_in_only_where_that_was_said() {
        let at = |listen: &str, insecure| Grpc {
            listen: listen.parse().expect("an address"),
            advertise: "logic-0:7070".into(),
            insecure,
        };
        let (none, some) = (Tls::default(), Tls { ca: "ca.pem".into(), ..Tls::default() });
        for listen in ["0.0.0.0:7070", "10.0.0.1:7070", "[::]:7070", "logic-0:7070"] {
            let wrong: Vec<_> = at(listen, false).check(&none).collect();
            assert!(wrong.len() == 1 && wrong[0].contains("grpc.insecure = true"), "{wrong:?}");
            assert_eq!(at(listen, true).check(&none).count(), 0);
            let warning = at(listen, true).warning(&none).expect("a warning");
            assert!(warning.starts_with("WHOEVER REACHES") && warning.contains(listen), "{warning}");
            assert_eq!(at(listen, false).check(&some).count(), 0);
            assert_eq!(at(listen, true).warning(&some), None);
        }
        for listen in ["127.0.0.1:0", "[::1]:7070", "localhost:7070", "127.8.8.8:1"] {
            assert_eq!((at(listen, false).check(&none).count(), at(listen, true).warning(&none)), (0, None));
        }
    }

    #[test]
    fn stages_have_room_for_what_they_do_and_fit_into_the_total() {
        let stages = StageTimes { drain_ms: 1_500, flush_ms: 500, ..StageTimes::default() };
        let shutdown = Shutdown { total_ms: 2_000, ..Shutdown::with(stages) };
        assert_eq!(shutdown.check(&stages, 0).count(), 0);
        let min = StageTimes { drain_ms: 1_600, ..StageTimes::default() };
        let wrong: Vec<_> = shutdown.check(&min, 1).collect();
        assert!(wrong[0].starts_with("shutdown.stages.drain_ms is 1500, at least 1600"), "{wrong:?}");
        assert!(wrong[1].starts_with("shutdown.total_ms is 2000, shutdown.stages need 2001"), "{wrong:?}");
        let plan = shutdown.plan(7);
        assert_eq!(plan.check(), Ok(()));
        let allowed: Vec<_> = plan.stages.iter().map(|stage| stage.allowed.as_millis()).collect();
        assert_eq!(allowed, [7, 0, 1_500, 500, 0, 2_000]);
    }
}
