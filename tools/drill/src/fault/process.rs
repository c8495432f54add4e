//! Faults of processes: signals to services, alone and together, while they start, run and stop. A process that was
//! ended is started again in its place.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::{join_all, try_join_all};
use rand::RngExt;
use rand::seq::SliceRandom;
use sluice_judge::record::FaultRecord;
use sluice_launcher::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{FaultInjector, FaultKind, STOP_BUDGET, STOP_WAIT, exit_of};
use crate::place::{Place, Role};
use crate::target::{Ended, Ending, Target, own};

/// A crashed process is away for up to this long: from a supervisor that is at once there to one that is slow.
const AWAY_MS: std::ops::Range<u64> = 0..1_500;
/// A start-up is hit within this time: it takes about as long.
const STARTING_MS: std::ops::Range<u64> = 0..300;
/// A stop is hit within this time: it takes about as long with clients connected.
const STOPPING_MS: std::ops::Range<u64> = 0..1_000;
/// Signals to everything are sent within this time.
const AT_ONCE_MS: u64 = 50;

impl FaultInjector<'_> {
    pub(super) async fn term(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let Some(place) = self.pick(role) else { return Ok(self.begin(role)) };
        let mut fault = self.begin(place);
        fault.hit = self.target.signal(place, Signal::SIGTERM).await;
        self.judge_end(&mut fault, place).await;
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// A second signal changes nothing: still 0, still in budget.
    pub(super) async fn term_twice(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let Some(place) = self.pick(role) else { return Ok(self.begin(role)) };
        let mut fault = self.begin(place);
        // SIGKILL is no second request; each of the others may be what a platform or a person sends.
        let second = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT][self.rng.random_range(0..3)];
        let after = Duration::from_millis(self.rng.random_range(STOPPING_MS));
        fault.hit = self.target.signal(place, Signal::SIGTERM).await;
        sleep(after).await;
        let in_time = self.target.signal(place, second).await;
        let came = if in_time { "came" } else { "would have come" };
        fault.note = format!("{second} {came} {} ms after SIGTERM", after.as_millis());
        self.judge_end(&mut fault, place).await;
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// Waits for the end of a process that was asked to stop, and writes down how it came.
    pub(super) async fn judge_end(&self, fault: &mut FaultRecord, place: Place) {
        let ended = self.target.ended(place, STOP_WAIT).await;
        let Some(ended) = ended else {
            // It broke its promise, which is judged; the run goes on with one that works.
            self.target.signal(place, Signal::SIGKILL).await;
            self.target.ended(place, STOP_WAIT).await;
            let late = Ended { how: Ending::Signal(Signal::SIGKILL as i32), took: STOP_WAIT };
            fault.exit = exit_of(&late, STOP_BUDGET);
            add_note(fault, &format!("it still ran after {STOP_WAIT:?} and was killed"));
            return;
        };
        fault.exit = exit_of(&ended, STOP_BUDGET);
        match ended.how {
            Ending::Signal(signal) => add_note(fault, &format!("signal {signal} ended it")),
            Ending::Unseen => add_note(fault, "its exit code was for its parent to see"),
            Ending::Code(_) => {}
        }
    }

    pub(super) async fn kill(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let Some(place) = self.pick(role) else { return Ok(self.begin(role)) };
        let mut faults = self.kill_all(&[place]).await?;
        faults.pop().context("one was killed")
    }

    /// SIGKILL to all of them at the same instant; each comes back after a pause of its own.
    pub(super) async fn kill_all(&mut self, places: &[Place]) -> anyhow::Result<Vec<FaultRecord>> {
        let mut faults = Vec::new();
        for place in places {
            let mut fault = self.begin(place);
            fault.hit = self.target.signal(*place, Signal::SIGKILL).await;
            faults.push(fault);
        }
        // Drawn in order, before anything runs beside anything: the seed decides, not who is first.
        let pauses: Vec<u64> = places.iter().map(|_| self.rng.random_range(AWAY_MS)).collect();
        let returns = faults.into_iter().zip(places).zip(pauses).map(|((mut fault, place), pause)| {
            let this = &*self;
            async move {
                let ended = this.target.ended(*place, STOP_WAIT).await;
                let ended = ended.with_context(|| format!("{place} does not even die of SIGKILL"))?;
                fault.exit = exit_of(&ended, Duration::ZERO);
                fault.note = format!("away for {pause} ms");
                sleep(Duration::from_millis(pause)).await;
                this.target.start(*place).await?;
                this.heal(&mut fault);
                anyhow::Ok(fault)
            }
        });
        try_join_all(returns).await
    }

    /// SIGTERM to all of a kind at the same instant.
    pub(super) async fn term_every(&mut self, role: Role) -> anyhow::Result<Vec<FaultRecord>> {
        let places = self.target.places(role);
        let mut faults = Vec::new();
        for place in &places {
            let mut fault = self.begin(place);
            fault.hit = self.target.signal(*place, Signal::SIGTERM).await;
            faults.push(fault);
        }
        self.ends_and_returns(faults, &places).await
    }

    async fn ends_and_returns(
        &self,
        faults: Vec<FaultRecord>,
        places: &[Place],
    ) -> anyhow::Result<Vec<FaultRecord>> {
        let returns = faults.into_iter().zip(places).map(|(mut fault, place)| async move {
            self.judge_end(&mut fault, *place).await;
            self.target.start(*place).await?;
            self.heal(&mut fault);
            anyhow::Ok(fault)
        });
        try_join_all(returns).await
    }

    /// The command of a given target, which stops one and starts it again.
    pub(super) async fn roll(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let (Target::Given(given), Some(place)) = (self.target, self.pick(role)) else {
            return Ok(self.begin(role));
        };
        let mut fault = self.begin(place);
        given.roll(place).await?;
        fault.hit = true;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// SIGKILL while it stops: what a platform does that does not wait.
    pub(super) async fn kill_stopping(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let Some(place) = self.pick(role) else { return Ok(self.begin(role)) };
        let mut fault = self.begin(place);
        let after = Duration::from_millis(self.rng.random_range(STOPPING_MS));
        fault.hit = self.target.signal(place, Signal::SIGTERM).await;
        // Faster than the second signal: that is an ordered stop, and judged as one.
        if let Some(ended) = self.target.ended(place, after).await {
            fault.exit = exit_of(&ended, STOP_BUDGET);
            fault.note = format!("it had stopped before the SIGKILL {} ms later", after.as_millis());
        } else {
            self.target.signal(place, Signal::SIGKILL).await;
            let ended = self.target.ended(place, STOP_WAIT).await;
            fault.exit = ended.and_then(|ended| exit_of(&ended, Duration::ZERO));
            fault.note = format!("SIGKILL {} ms after SIGTERM", after.as_millis());
        }
        self.target.start(place).await?;
        self.heal(&mut fault);
        Ok(fault)
    }

    /// SIGSTOP, a while, SIGCONT: also what a suspended machine or a stalled hypervisor does.
    pub(super) async fn freeze(&mut self, role: Role, time: Duration) -> anyhow::Result<FaultRecord> {
        let Some(place) = self.pick(role) else { return Ok(self.begin(role)) };
        let mut fault = self.begin(place);
        fault.hit = self.target.signal(place, Signal::SIGSTOP).await;
        sleep(time).await;
        // A process that a platform had replaced meanwhile would go on frozen under our eyes.
        if !self.target.signal(place, Signal::SIGCONT).await && fault.hit {
            bail!("{place} was gone when it was to be thawed");
        }
        self.heal(&mut fault);
        Ok(fault)
    }

    /// A stop, then a start that is asked to stop again at a random instant: two lines.
    pub(super) async fn term_starting(&mut self, role: Role) -> anyhow::Result<Vec<FaultRecord>> {
        let (Target::Own(own), Some(place), Some(service)) = (self.target, self.pick(role), role.service())
        else {
            return Ok(vec![self.begin(role)]);
        };
        let mut before = self.begin(place);
        before.kind = FaultKind::Term(role).to_string();
        before.hit = self.target.signal(place, Signal::SIGTERM).await;
        self.judge_end(&mut before, place).await;
        let after = Duration::from_millis(self.rng.random_range(STARTING_MS));
        let process = own.cluster().start_unawaited(service, place.index).await?;
        let mut fault = self.begin(place);
        sleep(after).await;
        // Looked at before the signal: afterwards the process may be gone, and its mask with it.
        let listens = catches(process.pid(), Signal::SIGTERM);
        fault.hit = process.term();
        fault.note = format!("{} ms after its start", after.as_millis());
        match process.wait_exit(STOP_WAIT).await {
            // before main there is nobody who could hear
            Ok(_) if !listens => {
                add_note(&mut fault, "it could not hear signals yet, so its end is not judged")
            }
            Ok(exit) => fault.exit = exit_of(&own::ended(&exit), STOP_BUDGET),
            Err(_) => {
                process.kill();
                let late = Ended { how: Ending::Signal(Signal::SIGKILL as i32), took: STOP_WAIT };
                fault.exit = exit_of(&late, STOP_BUDGET);
            }
        }
        self.target.start(place).await?;
        self.heal(&mut fault);
        // Between the two nothing was whole: what is owed counts from the end of both.
        before.healed_us = fault.healed_us;
        Ok(vec![before, fault])
    }

    /// SIGTERM to everything in random order, stores included; then everything starts again on the same data.
    pub(super) async fn all_at_once(&mut self) -> anyhow::Result<Vec<FaultRecord>> {
        let services: Vec<Place> = Role::SERVICES.iter().flat_map(|role| self.target.places(*role)).collect();
        let stores = Role::FORGETFUL.into_iter().chain([Role::Postgres]);
        let stores: Vec<Place> = stores.flat_map(|role| self.target.places(role)).collect();
        let mut order = [&*services, &*stores].concat();
        // In any order: no stop may hang on who hears of it first.
        order.shuffle(&mut self.rng);
        let began = Instant::now();
        let mut faults = Vec::new();
        for place in order {
            let pause = self.rng.random_range(0..AT_ONCE_MS * 1_000 / 10);
            sleep_until(
                (Instant::now() + Duration::from_micros(pause))
                    .min(began + Duration::from_millis(AT_ONCE_MS)),
            )
            .await;
            let mut fault = self.begin(place);
            fault.hit = self.target.signal(place, Signal::SIGTERM).await;
            faults.push((place, fault));
        }
        // Stores are not ours: how they end is not judged.
        faults.retain(|(place, _)| !place.role.is_store());
        join_all(faults.iter_mut().map(|(place, fault)| self.judge_end(fault, *place))).await;
        // SIGTERM alone lets PostgreSQL wait for its clients for ever
        try_join_all(stores.iter().map(|place| self.stop_store(*place))).await?;
        try_join_all(stores.iter().map(|place| self.target.start(*place))).await?;
        // a gateway is ready when a logic answers
        for first in [true, false] {
            let group = services.iter().filter(|place| (place.role == Role::Logic) == first);
            try_join_all(group.map(|place| self.target.start(*place))).await?;
        }
        Ok(faults
            .into_iter()
            .map(|(_, mut fault)| {
                self.heal(&mut fault);
                fault
            })
            .collect())
    }

    /// Ends a store in an ordered way.
    pub(super) async fn stop_store(&self, place: Place) -> anyhow::Result<()> {
        // PostgreSQL takes SIGTERM for "when the last client has gone", which may be never.
        let signal = if place.role == Role::Postgres { Signal::SIGINT } else { Signal::SIGTERM };
        self.target.signal(place, signal).await;
        if timeout(STOP_WAIT, self.target.ended(place, STOP_WAIT)).await.is_ok_and(|ended| ended.is_some()) {
            return Ok(());
        }
        self.target.signal(place, Signal::SIGQUIT).await;
        self.target.ended(place, STOP_WAIT).await.with_context(|| format!("{place} does not end"))?;
        Ok(())
    }
}

pub(super) fn add_note(fault: &mut FaultRecord, text: &str) {
    if !fault.note.is_empty() {
        fault.note.push_str("; ");
    }
    fault.note.push_str(text);
}

/// Whether a process has a handler for a signal; without one it dies of it, whatever its program says.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal as u32 - 1) & 1 == 1
}
