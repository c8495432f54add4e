//! Faults of links: a while of trouble between two processes, then it heals.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rand::RngExt;
use sluice_judge::record::FaultRecord;
use tokio::time::{Instant, sleep};

use super::FaultInjector;
use super::store::leader_but;
use crate::links::Link;
use crate::place::{Place, Role};
use crate::proxy::Trouble;
use crate::target::Target;

/// A link is bad for this long: from below the deadline of a call to beyond a lease.
const TROUBLE_MS: std::ops::Range<u64> = 300..5_000;
/// Whoever lost a connection has dialled again within this.
const DIALLED: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

impl FaultInjector<'_> {
    pub(super) async fn cut(&mut self, link: Link, trouble: Trouble) -> anyhow::Result<FaultRecord> {
        let (Target::Own(own), Some(place)) = (self.target, self.pick(link.owner())) else {
            return Ok(self.begin(link));
        };
        let Some(links) = own.links() else { bail!("{link} does not lead through a proxy") };
        let time = Duration::from_millis(self.rng.random_range(TROUBLE_MS));
        // one that is being dialled again is worth waiting for: a fault must hit
        let until = Instant::now() + DIALLED;
        while links.connections(link, place.index) == 0 && Instant::now() < until {
            sleep(LOOK).await;
        }
        let mut fault = self.begin(link.at(place.index));
        // Counted before the trouble: afterwards those that noticed it are gone already.
        let connections = links.connections(link, place.index);
        links.trouble(link, place.index, trouble);
        fault.hit = connections > 0;
        fault.note = format!("{connections} connections for {} ms", time.as_millis());
        sleep(time).await;
        links.heal(link, place.index);
        self.heal(&mut fault);
        Ok(fault)
    }

    /// The member that leads, and in turn another one, lives on alone, until another one leads and for a while after.
    pub(super) async fn partition(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let (Target::Own(own), Some(service)) = (self.target, role.service()) else {
            return Ok(self.begin(role));
        };
        let Some(doors) = own.doors() else { bail!("members of {role} have no doors") };
        let Some(leader) = leader_but(own, service, None).await else {
            return Ok(self.missed(role, &anyhow!("nobody leads")));
        };
        let leads = self.turn.is_multiple_of(2);
        let count = self.target.places(role).len();
        let index = if leads { leader } else { (leader + 1) % count };
        let part = if leads { "it led" } else { "another one led" };
        let more = Duration::from_millis(self.rng.random_range(TROUBLE_MS));
        let mut fault = self.begin(Place { role, index });
        let pids = || own.cluster().pids(service, index);
        let (connections, began) = (doors.connections((service, index)), Instant::now());
        fault.hit = doors.is_connected((service, index), &pids());
        let next = doors.partition((service, index), pids, async {
            let next = leader_but(own, service, leads.then_some(index)).await;
            let after = began.elapsed();
            sleep(more).await;
            next.map(|next| format!("{} leads after {} ms", service.name(next), after.as_millis()))
        });
        let next = next.await.with_context(|| format!("nobody leads {role} but who is cut off"))?;
        fault.note = format!(
            "{part}, {connections} connections to it, {next}, for {} ms",
            began.elapsed().as_millis()
        );
        if role == Role::Postgres {
            self.healed_whole(own, &mut fault).await?;
        } else {
            self.heal(&mut fault);
        }
        Ok(fault)
    }

    pub(super) async fn disconnect(&mut self, role: Role) -> anyhow::Result<FaultRecord> {
        let (Target::Given(given), Some(place)) = (self.target, self.pick(role)) else {
            return Ok(self.begin(role));
        };
        let time = Duration::from_millis(self.rng.random_range(TROUBLE_MS));
        let mut fault = self.begin(place);
        let networks = given.connect(place, None).await?;
        fault.hit = !networks.is_empty();
        let names: Vec<&str> = networks.iter().map(|at| at.network.as_str()).collect();
        fault.note = format!("off {} for {} ms", names.join(", "), time.as_millis());
        sleep(time).await;
        given.connect(place, Some(&networks)).await?;
        self.heal(&mut fault);
        Ok(fault)
    }
}
