//! The crowd of a load: thousands of clients on one thread, driven by [`sluice_load::Crowd`], that only read. What
//! happens to each is written down as for everybody else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use sluice_client::Trust;
use sluice_judge::record::ClientEvent;
use sluice_load::Destination;
use sluice_load::crowd::{Crowd, Event, Gateway};
use sluice_load::dial::raise_file_limit;
use sluice_load::server_frame::ServerFrame;

use super::plan::ClientSpec;
use super::recorder::Recorder;
use super::shared::{LoadPhase, LoadShared};

/// First connections at once.
const GATHERING_MAX: usize = 256;
/// Longest wait of a turn: how soon the end of the load is seen.
const TURN: Duration = Duration::from_millis(20);
/// Clients that go back to their gateway do so within this.
const SPREAD: Duration = Duration::from_secs(2);
/// Between two looks at where everybody is.
const LOOK: Duration = Duration::from_millis(250);
/// Goodbyes take this long at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// One of the crowd.
pub(super) struct Member {
    pub spec: ClientSpec,
    pub recorder: Recorder,
}

/// What is written down of everybody.
struct Members<'a> {
    shared: &'a LoadShared,
    members: Vec<Member>,
    gathered: Vec<bool>,
}

/// Until the load ends.
///
/// # Errors
/// When the system has no sockets left, or a gateway has no address.
pub(super) fn live(shared: &Arc<LoadShared>, members: Vec<Member>) -> anyhow::Result<()> {
    // First: thousands of sockets are more than a shell allows by itself.
    raise_file_limit()?;
    let (tokens, seed) = (Arc::clone(shared), shared.plan.seed);
    let mut crowd = Crowd::new(Box::new(move |user| tokens.endpoints.token(user)), GATHERING_MAX, seed)?;
    for member in &members {
        crowd.join(&member.spec.user, &member.spec.rooms);
    }
    let mut changes = shared.endpoints.changes();
    let trust = shared.endpoints.trust();
    crowd.set_gateways(gateways(&changes.borrow_and_update(), &trust)?);
    let (members_len, mut looked) = (members.len(), Instant::now());
    let gathered = vec![false; members_len];
    let mut members = Members { shared, members, gathered };
    let mut witness = |client: usize, event: Event<'_>| members.see(client, event);
    let mut spreads = 0;
    while shared.phase() < LoadPhase::End {
        crowd.turn(TURN, &mut witness)?;
        let asked = shared.spreads.load(Relaxed);
        // By a number, as the asker and this thread look at different times.
        if std::mem::replace(&mut spreads, asked) != asked {
            crowd.spread(SPREAD);
        }
        if looked.elapsed() > LOOK {
            let astray = members_len - crowd.at_home();
            shared.astray.store(u32::try_from(astray).unwrap_or(u32::MAX), Relaxed);
            looked = Instant::now();
        }
        // Addresses change with each gateway that is replaced: who comes back must know the new ones.
        if changes.has_changed().unwrap_or(false) {
            crowd.set_gateways(gateways(&changes.borrow_and_update(), &trust)?);
        }
    }
    let until = Instant::now() + LEAVE_WITHIN;
    crowd.leave(&mut witness);
    while !crowd.is_gone() && Instant::now() < until {
        crowd.turn(TURN, &mut witness)?;
    }
    members.members.iter().for_each(|member| {
        member.recorder.note(&ClientEvent::End);
    });
    Ok(())
}

fn gateways(urls: &[String], trust: &Trust) -> anyhow::Result<Vec<Gateway>> {
    urls.iter().map(|url| Ok(Gateway { url: url.clone(), to: destination(url, trust)? })).collect()
}

/// Where a gateway listens, and whose certificate is taken for its own.
///
/// # Errors
/// When the URL names no host that is known.
pub fn destination(url: &str, trust: &Trust) -> anyhow::Result<Destination> {
    Destination::of(url, &trust.config()).map_err(|why| anyhow!(why))
}

impl Members<'_> {
    fn see(&mut self, client: usize, event: Event<'_>) {
        let Some(Member { recorder, .. }) = self.members.get(client) else { return };
        match event {
            Event::Welcomed { url, instance, epoch, .. } => {
                // both count connections from 1, so the numbers are the same
                recorder.moved(url.to_owned(), instance.to_owned(), epoch.to_owned());
            }
            Event::Failed { url, reason } => recorder.failed(url.to_owned(), reason),
            Event::Asked { conn, room, after, epoch } => {
                let (room, epoch) = (room.to_owned(), epoch.map(str::to_owned));
                recorder.note(&ClientEvent::Sub { conn, room, after, epoch });
            }
            Event::Frame { conn, frame, is_answer } => on_frame(recorder, conn, frame, is_answer),
            Event::Live => {
                if let Some(gathered) = self.gathered.get_mut(client)
                    && !std::mem::replace(gathered, true)
                {
                    self.shared.one_is_ready();
                }
            }
            Event::Closed { conn, code, reason, is_current: true } => recorder.closed(conn, code, &reason),
            Event::Closed { conn, code, reason, is_current: false } => {
                recorder.note(&ClientEvent::Closed { conn, code, reason });
            }
        }
    }
}

fn on_frame(recorder: &Recorder, conn: u32, frame: &ServerFrame<'_>, is_answer: bool) {
    if recorder.heard(conn, frame) {
        return;
    }
    if let Some(error) = &frame.error {
        recorder.refused(conn, error);
    } else if frame.ok.as_deref() != Some("sub") || !recorder.confirmed(conn, frame, is_answer) {
        let (code, message) = ("odd".to_owned(), "a frame that nobody knows".to_owned());
        recorder.note(&ClientEvent::Error { conn, code, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_found_by_their_urls() {
        let urls = ["ws://127.0.0.1:81/ws".to_owned(), "ws://127.0.0.1:82/ws".to_owned()];
        let trust = Trust::default();
        let found = gateways(&urls, &trust).unwrap();
        assert_eq!(found.iter().map(|it| it.to.address.port()).collect::<Vec<_>>(), [81, 82]);
        assert!(
            gateways(&["nonsense".to_owned()], &trust).unwrap_err().to_string().contains("ws://host:port")
        );
    }
}
