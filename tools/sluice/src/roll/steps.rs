//! The roll itself: one instance after the other, none before all others are ready. Everything that could be needed to
//! go on later is in the state before it is done.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use sluice_drill::run::{During, Intervention};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::condition::Stopped;
use super::instance::{Hold, Instance, Lack};
use super::state::State;

/// Between two looks at something that becomes ready.
const LOOK: Duration = Duration::from_millis(250);

/// How far a roll came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    /// It was asked to end, and ended between two instances.
    Asked,
}

pub(super) struct Roll<'a> {
    /// In order.
    pub(super) instances: &'a [Instance],
    pub(super) board: &'a Board,
    /// A replacement is ready within this.
    pub(super) ready: Duration,
    /// Between two instances, for balancers to see the new one.
    pub(super) pause: Duration,
    /// Somebody asks to end it after this instance.
    pub(super) asked: &'a CancellationToken,
    /// Hears of each replacement.
    pub(super) during: &'a During,
}

impl Roll<'_> {
    pub(super) async fn run(&self, state: &mut State) -> anyhow::Result<End> {
        let mut first = true;
        for instance in self.instances.iter().filter(|instance| instance.wanted) {
            if state.is_done(&instance.name) {
                self.board.step(&instance.name, "replaced earlier");
                continue;
            }
            if !first {
                self.asked.run_until_cancelled(sleep(self.pause)).await;
            }
            first = false;
            if self.asked.is_cancelled() {
                return Ok(End::Asked);
            }
            self.others_are_ready(instance).await?;
            self.replace(instance, state).await.with_context(|| instance.name.clone())?;
        }
        Ok(End::Complete)
    }

    async fn replace(&self, instance: &Instance, state: &mut State) -> anyhow::Result<()> {
        let name = &instance.name;
        let identity = instance.hold.identity().await?;
        let left = state.now().filter(|step| step.name == *name).cloned();
        let replaced = left.as_ref().is_some_and(|step| identity.is_some() && identity != step.was);
        if left.is_none() {
            state.begin(name, identity.clone())?;
        }
        let mut said = String::new();
        let mut former = None;
        let (mut stopped, stopping) = (None, Instant::now());
        if identity.is_some() && !replaced {
            // Who is signalled must be who is meant: afterwards it is too late to find out.
            former = instance.life().await.context("nothing was done to it")?;
            self.board.step(name, "stopping");
            let end = instance.hold.stop().await?;
            said = format!("{end}, ");
            stopped = Some(end);
        }
        let began = Instant::now();
        self.board.step(name, &format!("{said}starting"));
        instance.hold.start().await?;
        if let Hold::Process(process) = &instance.hold {
            state.started(name, process.pid())?;
        }
        self.becomes_ready(instance).await?;
        let life = instance.life().await.context("the replacement cannot be seen")?;
        if life.is_some() && life == former {
            bail!(
                "its admin page still shows {}: the former process answers there",
                former.unwrap_or_default()
            );
        }
        state.finish(name)?;
        self.during.did(Intervention {
            kind: format!("roll {}", instance.kind),
            target: name.clone(),
            began: stopping.into_std(),
            healed: Instant::now().into_std(),
            exit: stopped.map(Stopped::ended),
        });
        let of = self.instances.iter().filter(|instance| instance.wanted).count();
        let took = began.elapsed().as_secs_f32();
        let pid = match &instance.hold {
            Hold::Process(process) => format!(", pid {}", process.pid()),
            Hold::Container(_) => String::new(),
        };
        self.board.step(name, &format!("{said}ready after {took:.1} s{pid} ({} of {of})", state.done()));
        match stopped.and_then(|stopped| stopped.code) {
            Some(code) if code != 0 => bail!(
                "it ended with {code}, not with 0: its replacement is ready; look at the log of the former before \
                 you go on"
            ),
            Some(_) | None => Ok(()),
        }
    }

    async fn becomes_ready(&self, instance: &Instance) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match instance.lacks().await? {
                None => return Ok(()),
                Some(Lack::Ended(why)) => bail!("the replacement does not run: {why}"),
                Some(lack) if began.elapsed() > self.ready => {
                    bail!("the replacement was not ready after {} s: {lack}", self.ready.as_secs())
                }
                Some(Lack::Passing(_)) => sleep(LOOK).await,
            }
        }
    }

    /// Nobody is taken away while somebody else is missing.
    async fn others_are_ready(&self, instance: &Instance) -> anyhow::Result<()> {
        let began = Instant::now();
        let others = || self.instances.iter().filter(|other| other.name != instance.name);
        loop {
            let looks = others().map(|other| async move { anyhow::Ok((other, other.is_missing().await?)) });
            let lacks = try_join_all(looks).await?;
            let Some((other, lack)) = lacks.into_iter().find_map(|(other, lack)| Some((other, lack?))) else {
                return Ok(());
            };
            if matches!(lack, Lack::Ended(_)) || began.elapsed() > self.ready {
                bail!(
                    "{} is not ready ({lack}), and {} is taken away only while all others are: nothing was done to it",
                    other.name,
                    instance.name
                );
            }
            self.board.step(&instance.name, &format!("waits for {}", other.name));
            sleep(LOOK).await;
        }
    }
}
