//! What every test is made of: a running Sluice, clients of it, and conditions that are waited for.

use std::time::Duration;

use sluice_client::Options as ClientOptions;
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_launcher::Service;
use sluice_launcher::token::{self, Grants};
use tokio::time::{Instant, sleep, timeout};

use crate::record::Stored;

/// Bound of waits that should end at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Longer than any test: how long its tokens are good.
const A_DAY: Duration = Duration::from_secs(24 * 3_600);

/// A running Sluice: what is promised of it does not depend on what it is made of. Killed when dropped.
pub trait Ground: Sized {
    /// Starts it and waits until it is ready. At least so many of each; what runs in one process has one logic and one
    /// task.
    async fn start(gateways: usize, logics: usize, tasks: usize) -> Self;
    /// Stops all of it in order.
    async fn stop(self);
    /// Where clients connect, gateway by gateway.
    fn entrances(&self) -> Vec<String>;
    /// What tokens are signed with.
    fn secret(&self) -> String;
    /// The origin of a page that is let in.
    fn origin(&self) -> String;
    /// Resident memory of the process that holds the first gateway.
    fn memory_bytes(&self) -> u64;
    /// The messages of a room, as they are in the store.
    async fn table(&self, room: &str) -> Vec<Stored>;
    /// Changes the store past all services; how many rows.
    async fn sql(&self, text: &'static str) -> u64;
    /// Stops one service in order and starts it again in its place. Returns how long its going took at most.
    async fn roll(&self, service: Service, index: usize) -> Duration;
    /// Takes the first logic away as rudely as can be while gateways go on.
    async fn lose_a_logic(&self);
    /// Kills each process and starts it again, one after the other.
    async fn kill_each(&self);
    /// Signals every process at once, servers included, and starts them all again.
    async fn stop_and_start_all(&self);
    /// Puts an older copy of the store in its place, made by these changes, and runs `sluice store new-epoch`.
    async fn put_back(&self, changes: &[&'static str]);

    /// A token of `user` that opens every room.
    fn token(&self, user: &str) -> String {
        let grants = Grants { sub: vec!["*".into()], publish: vec!["*".into()] };
        self.token_with(user, grants)
    }

    /// A token of `user` with these grants.
    fn token_with(&self, user: &str, grants: Grants) -> String {
        token::mint(&self.secret(), user, grants, A_DAY).unwrap()
    }

    /// Where clients of one gateway connect.
    fn ws(&self, at: usize) -> String {
        self.entrances().swap_remove(at)
    }
}

/// Tests of one module of promises on one ground, by the names of their bodies.
macro_rules! promises {
    ($ground:ty, $($module:ident: $($promise:ident),+;)+) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    crate::$module::$promise::<$ground>().await;
                }
            )+
        })+
    };
}

/// What is promised on every ground.
macro_rules! all_promises {
    ($ground:ty) => {
        promises!($ground,
            by_hand:
                the_transcript_of_wire_md_is_true,
                websocat_publishes_and_subscribes,
                the_client_in_python_keeps_the_promises;
            delayed:
                a_delayed_message_comes_once_in_time_unless_it_was_cancelled,
                delayed_messages_come_once_while_tasks_are_rolled_and_killed,
                cancels_that_race_with_firing_are_true,
                a_key_that_waits_is_taken_and_a_user_has_so_many;
            deploys:
                sigterm_to_each_service_one_after_the_other,
                sigkill_to_each_process_one_after_the_other,
                the_only_logic_and_the_only_task_are_replaced_without_a_failed_publish,
                everything_is_signalled_at_once_and_starts_again,
                a_gateway_stops_in_time_whatever_its_clients_do;
            history:
                two_clients_on_two_gateways_see_one_order,
                a_client_that_is_cut_every_200_messages_resumes_elsewhere,
                every_publish_sent_twice_is_stored_once_and_a_reused_key_is_a_conflict,
                publishes_without_key_are_stored_once_while_a_logic_goes,
                anonymous_users_differ_and_keep_their_identity_by_token;
            input:
                bad_frames_are_answered_and_others_are_untouched,
                text_that_is_not_utf8_closes_with_1007,
                upgrades_are_read_as_the_standard_says_and_never_in_two_ways,
                tokens_grants_and_origins_are_enforced;
            pages:
                a_short_page_of_history_says_where_to_go_on,
                presence_says_how_many_there_are_and_gives_everybody_page_by_page;
            resume: positions_are_honest, a_restored_store_is_told_to_everybody;
            slow: a_slow_reader_ends_complete_and_costs_little;
        );
    };
}

/// Options of a client of `user` that prefers gateway `at` and knows all others.
pub fn client_of(ground: &impl Ground, user: &str, at: usize) -> ClientOptions {
    let mut entrances = ground.entrances();
    let first = ClientOptions::new(entrances.remove(at)).token(ground.token(user));
    entrances.into_iter().fold(first, ClientOptions::or)
}

/// A bare connection of `user`, after `welcome`.
pub async fn socket_of(ground: &impl Ground, user: &str, at: usize) -> Socket {
    let handshake = Handshake::new(ground.ws(at)).token(ground.token(user));
    let mut socket = Socket::connect(&handshake).await.unwrap();
    let welcome = json(&mut socket).await;
    assert_eq!(welcome["welcome"]["user"], user, "{welcome}");
    socket
}

/// The next JSON frame, in time.
pub async fn json(socket: &mut Socket) -> serde_json::Value {
    match timeout(SOON, socket.json()).await.expect("a frame in time") {
        Ok(value) => value,
        Err(frame) => panic!("expected JSON, got {frame:?}"),
    }
}

/// The next JSON frame that has `field`.
pub async fn json_with(socket: &mut Socket, field: &str) -> serde_json::Value {
    loop {
        let value = json(socket).await;
        if value.get(field).is_some() {
            return value;
        }
    }
}

/// The close frame, after whatever comes before it.
pub async fn close_of(socket: &mut Socket) -> (u16, String) {
    loop {
        match timeout(SOON, socket.next()).await.expect("a close frame in time") {
            Frame::Close { code, reason } => return (code, reason),
            Frame::End(why) => panic!("ended without a close frame: {why}"),
            Frame::Text(_) | Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
        }
    }
}

/// Waits until `condition` holds, looking every 10 ms.
pub async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
