//! Faults of the servers below: restarts, losses, old copies. What they hold may be gone; what PostgreSQL has said is
//! stored may not, unless an older copy was put back, which is then told with a new epoch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rand::RngExt;
use sluice_judge::record::FaultRecord;
use sluice_launcher::{Service, Signal};
use sluice_lifecycle::error_chain;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::process::add_note;
use super::{FaultInjector, STOP_WAIT};
use crate::place::{Place, Role};
use crate::redis_link;
use crate::target::Target;
use crate::target::own::Own;

/// Between a copy and the moment it is put back: people come and go, messages are stored.
const AGE_MS: std::ops::Range<u64> = 1_500..3_500;
/// Longest copy of a store.
const COPY: Duration = Duration::from_secs(60);
/// A group of servers has another leader within this, and is whole again: NATS takes four to nine seconds for each election,
/// and a member of PostgreSQL that is copied anew waits for a checkpoint, of 30 s.
const TAKEN_OVER: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest question to a store.
const ASK: Duration = Duration::from_secs(10);

impl FaultInjector<'_> {
    pub(super) async fn restart(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let place = self.pick(role).unwrap_or(Place::only(role));
        let mut fault = self.begin(place);
        // PostgreSQL takes it for a stop without haste: the one that follows is what hits.
        fault.hit = self.target.signal(place, Signal::SIGTERM).await || role == Role::Postgres;
        self.stop_store(place).await?;
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// The leader dies, another one takes over, and the old one comes back as one of the others.
    pub(super) async fn kill_leader(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let (Target::Own(own), Some(service)) = (self.target, role.service()) else {
            return Ok(self.begin(role));
        };
        let Some(index) = leader_but(own, service, None).await else {
            return Ok(self.missed(role, &anyhow!("nobody leads")));
        };
        let place = Place { role, index };
        let mut fault = self.begin(place);
        fault.hit = self.target.signal(place, Signal::SIGKILL).await;
        let killed = Instant::now();
        self.target.ended(place, STOP_WAIT).await.with_context(|| format!("{place} does not die"))?;
        fault.note = followed(own, service, index, killed).await?;
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// As somebody does who takes a machine out of service.
    pub(super) async fn fail_over(&mut self) -> anyhow::Result<FaultRecord> {
        let role = Role::Redis;
        let Target::Own(own) = self.target else { return Ok(self.begin(role)) };
        let Some(index) = leader_but(own, Service::Redis, None).await else {
            return Ok(self.missed(role, &anyhow!("nobody leads")));
        };
        let mut fault = self.begin(Place { role, index });
        let asked = Instant::now();
        if let Err(error) = own.cluster().fail_over_redis().await {
            return Ok(self.missed(role, &error.into()));
        }
        fault.hit = true;
        fault.note = followed(own, Service::Redis, index, asked).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// The primary goes on alone: nothing it commits is acknowledged once its standby was promoted, and its sessions end.
    pub(super) async fn kill_patroni(&mut self) -> anyhow::Result<FaultRecord> {
        let role = Role::Postgres;
        let (Target::Own(own), Some(index)) = (self.target, self.primary().await) else {
            return Ok(self.begin(role));
        };
        let place = Place { role, index };
        let mut fault = self.begin(place);
        let patroni = own.cluster().node(Service::Postgres, index).context("the primary has no process")?;
        fault.hit = patroni.kill();
        let killed = Instant::now();
        self.target.ended(place, STOP_WAIT).await.with_context(|| format!("{place} does not die"))?;
        fault.note = followed(own, Service::Postgres, index, killed).await?;
        self.target.start(place).await?;
        self.healed_whole(own, &mut fault).await?;
        Ok(fault)
    }

    /// Its Patroni starts it again, or another one is promoted: whichever comes first.
    pub(super) async fn kill_postmaster(&mut self) -> anyhow::Result<FaultRecord> {
        let role = Role::Postgres;
        let (Target::Own(own), Some(index)) = (self.target, self.primary().await) else {
            return Ok(self.begin(role));
        };
        let mut fault = self.begin(Place { role, index });
        let killed = own.cluster().postmaster(index);
        fault.hit = own.cluster().signal_postmaster(index, Signal::SIGKILL);
        // Before that everything looks as it was: Patroni has not noticed yet.
        let until = Instant::now() + TAKEN_OVER;
        while own.cluster().postmaster(index).is_none_or(|now| Some(now) == killed) {
            if Instant::now() >= until {
                bail!("PostgreSQL is not started again within {TAKEN_OVER:?}");
            }
            sleep(LOOK).await;
        }
        self.healed_whole(own, &mut fault).await?;
        Ok(fault)
    }

    pub(super) async fn switchover(&mut self) -> anyhow::Result<FaultRecord> {
        let role = Role::Postgres;
        let (Target::Own(own), Some(index)) = (self.target, self.primary().await) else {
            return Ok(self.begin(role));
        };
        let mut fault = self.begin(Place { role, index });
        own.cluster().switch_over().await?;
        let next = leader_but(own, Service::Postgres, Some(index)).await.context("nobody took over")?;
        fault.hit = true;
        fault.note = format!("{} leads", Service::Postgres.name(next));
        self.healed_whole(own, &mut fault).await?;
        Ok(fault)
    }

    /// The primary of PostgreSQL, as soon as there is one.
    async fn primary(&self) -> Option<usize> {
        let Target::Own(own) = self.target else { return None };
        leader_but(own, Service::Postgres, None).await
    }

    pub(super) async fn healed_whole(&self, own: &Own, fault: &mut FaultRecord) -> anyhow::Result<()> {
        let until = Instant::now() + TAKEN_OVER;
        // What members say of each other is some seconds old; the primary speaks for itself.
        while own.cluster().leader(Service::Postgres).await.is_none() || !own.cluster().is_whole().await {
            if Instant::now() >= until {
                bail!("PostgreSQL is not whole after {TAKEN_OVER:?}");
            }
            sleep(LOOK).await;
        }
        self.heal(fault);
        Ok(())
    }

    pub(super) async fn wipe(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let (Target::Own(own), Some(service)) = (self.target, role.service()) else {
            return Ok(self.begin(role));
        };
        let mut fault = self.begin(role);
        // In turn: a server that forgets while it runs looks different from one that starts empty.
        if role == Role::Redis && self.turn.is_multiple_of(2) {
            own.cluster().flush_redis().await?;
            fault.note = "FLUSHALL".into();
        } else {
            own.cluster().wipe_store(service).await?;
            fault.note = "stopped, emptied, started".into();
        }
        fault.hit = true;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// What Redis held some seconds ago comes back, as from a replica that was behind or a snapshot.
    pub(super) async fn old_redis(&mut self) -> anyhow::Result<FaultRecord> {
        let Target::Own(own) = self.target else { return Ok(self.begin(Role::Redis)) };
        let data = own.cluster().store_data(Service::Redis)?;
        let (dump, kept) = (data.join("dump.rdb"), data.join("kept.rdb"));
        let saved = async {
            let mut connection = redis_link::dial(own.cluster()).await?;
            let said: String = redis::cmd("SAVE").query_async(&mut connection).await?;
            tokio::fs::rename(&dump, &kept)
                .await
                .with_context(|| format!("SAVE said {said}, but there is no dump"))
        };
        if let Err(error) = saved.await {
            return Ok(self.missed(Role::Redis, &error));
        }
        let age = self.rng.random_range(AGE_MS);
        sleep(Duration::from_millis(age)).await;
        let mut fault = self.begin(Role::Redis);
        own.cluster().stop_store(Service::Redis).await?;
        tokio::fs::rename(&kept, &dump).await?;
        own.cluster().start_store(Service::Redis).await?;
        tokio::fs::remove_file(&dump).await?; // else the next plain restart would bring it back too
        fault.hit = true;
        fault.note = format!("{age} ms old");
        self.heal(&mut fault);
        Ok(fault)
    }

    /// SIGQUIT: PostgreSQL drops everything and recovers from its log at the next start.
    pub(super) async fn crash(&mut self) -> anyhow::Result<FaultRecord> {
        let place = Place::only(Role::Postgres);
        let mut fault = self.begin(place);
        fault.hit = self.target.signal(place, Signal::SIGQUIT).await;
        self.target.ended(place, STOP_WAIT).await.context("PostgreSQL does not end")?;
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    pub(super) async fn sessions(&mut self) -> anyhow::Result<FaultRecord> {
        let mut fault = self.begin(Role::Postgres);
        let url = self.target.store_url().context("nobody said where the store is")?;
        let ended = timeout(ASK, end_sessions(&url)).await.context("PostgreSQL does not answer").flatten();
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return Ok(self.missed(Role::Postgres, &error)),
        };
        fault.hit = ended > 0;
        fault.note = format!("{ended} sessions");
        self.heal(&mut fault);
        Ok(fault)
    }

    /// A copy taken while the load runs is put back later; the new epoch is there before any service sees it.
    pub(super) async fn restore(&mut self) -> anyhow::Result<FaultRecord> {
        let Target::Own(own) = self.target else { return Ok(self.begin(Role::Postgres)) };
        let data = own.cluster().store_data(Service::Postgres)?.join("data");
        let copy = data.with_file_name("copy");
        remove(&copy).await?;
        // Before the copy begins: what is stored meanwhile may be in it or not, and counts as lost.
        let copied_us = self.clock.now_us();
        if let Err(error) = copy_of(own, &data, &copy).await {
            return Ok(self.missed(Role::Postgres, &error));
        }
        let age = self.rng.random_range(AGE_MS);
        sleep(Duration::from_millis(age)).await;
        let mut fault = self.begin(Role::Postgres);
        own.cluster().stop_store(Service::Postgres).await?;
        remove(&data).await?;
        tokio::fs::rename(&copy, &data).await?;
        // While only this sees the store: a service that came first would go on in the old epoch.
        let epoch = own.cluster().aside(Service::Postgres, sluice_store::postgres::new_epoch).await??;
        own.cluster().start_store(Service::Postgres).await?;
        fault.hit = true;
        fault.copied_us = Some(copied_us);
        add_note(&mut fault, &format!("a copy {age} ms old, epoch {epoch}"));
        self.heal(&mut fault);
        Ok(fault)
    }
}

impl FaultInjector<'_> {
    /// It could not even be prepared: nothing was harmed, and nothing is shown.
    pub(super) fn missed(&self, role: Role, why: &anyhow::Error) -> FaultRecord {
        let mut fault = self.begin(role);
        fault.note = format!("not done: {}", error_chain(why.as_ref()));
        fault
    }
}

/// Waits until another one leads, and says which, and how long after `since`.
async fn followed(own: &Own, service: Service, former: usize, since: Instant) -> anyhow::Result<String> {
    let next = leader_but(own, service, Some(former)).await;
    let next = next.with_context(|| format!("nobody leads {service} after {TAKEN_OVER:?}"))?;
    Ok(format!("{} leads after {} ms", service.name(next), since.elapsed().as_millis()))
}

/// The member that leads, as soon as there is one that is not this.
pub(super) async fn leader_but(own: &Own, service: Service, not: Option<usize>) -> Option<usize> {
    let until = Instant::now() + TAKEN_OVER;
    loop {
        let leader = own.cluster().leader(service).await;
        if leader.is_some() && leader != not {
            return leader;
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(LOOK).await;
    }
}

async fn end_sessions(url: &str) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let ended = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    )
    .execute(&mut connection)
    .await?
    .rows_affected();
    connection.close().await?;
    Ok(ended)
}

/// A physical copy of a running server, owned like the original.
async fn copy_of(own: &Own, data: &Path, copy: &Path) -> anyhow::Result<()> {
    let program = own.program_of(Service::Postgres)?.with_file_name("pg_basebackup");
    let url = own.store_url();
    run(Command::new(program)
        .args(["--checkpoint=fast", "--no-sync", "--dbname", &url, "--pgdata"])
        .arg(copy))
    .await?;
    run(Command::new("chown").args(["-R", "--reference"]).args([data, copy])).await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output =
        timeout(COPY, command.kill_on_drop(true).output()).await.context("a copy took too long")??;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

async fn remove(folder: &PathBuf) -> anyhow::Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
