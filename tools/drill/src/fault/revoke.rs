//! Users are disconnected by the API, one after the other, while every gateway and every logic is rolled. Each has a
//! connection at each gateway that lets it in; what became of them, and of the token, is written down for the judge.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use serde_json::json;
use sluice_client::Trust;
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_judge::record::{FaultRecord, RevocationRecord, RevokedConnection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::process::add_note;
use super::{FaultInjector, append_lines};
use crate::api::{ApiAccess, Calls};
use crate::clock::Clock;
use crate::place::Role;
use crate::run::token::token;

/// What is promised: a connection of who is disconnected ends within this.
const WITHIN: Duration = Duration::from_secs(1);
/// A connection that has not ended by then never will, for the record.
const END: Duration = Duration::from_secs(10);
/// After the answer the token is tried at every gateway for so long: those that start meanwhile have to know too.
const TRIED: Duration = Duration::from_secs(1);
/// One try, and one call.
const TRY: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(4);
/// A user is disconnected within this, whoever is away: longer than the roll of one process.
const ANSWERED: Duration = Duration::from_secs(30);
/// Between two tries of anything.
const PAUSE: Duration = Duration::from_millis(50);

/// Who disconnects, and whom.
struct Revoker {
    urls: Vec<String>,
    secret: String,
    trust: Trust,
    api: ApiAccess,
    calls: Calls,
    clock: Clock,
    /// What users are called, before their number.
    user: String,
}

impl FaultInjector<'_> {
    pub(super) async fn revoke(&mut self) -> anyhow::Result<Vec<FaultRecord>> {
        let mut fault = self.begin("users");
        let Some(api) = self.target.api() else {
            // Hits nothing: the run is inconclusive, and says so.
            fault.note = "nobody said where the API is".to_owned();
            return Ok(vec![fault]);
        };
        let revoker = Revoker {
            urls: self.target.endpoints(),
            secret: self.target.token_secret().to_owned(),
            trust: self.trust.clone(),
            api,
            calls: Calls::default(),
            clock: self.clock,
            user: format!("revoked-{}", self.round),
        };
        let over = CancellationToken::new();
        let rolled = async {
            let rolled = self.roll_everyone().await;
            over.cancel();
            rolled
        };
        let (revocations, rolled) = tokio::join!(revoker.until(&over), rolled);
        let (revocations, mut faults) = (revocations?, rolled?);
        let connections: Vec<&RevokedConnection> =
            revocations.iter().flat_map(|it| &it.connections).collect();
        fault.hit = !connections.is_empty();
        let tries: u64 = revocations.iter().map(|it| it.refused).sum();
        add_note(
            &mut fault,
            &format!(
                "{} users with {} connections disconnected meanwhile, their tokens refused {tries} times",
                revocations.len(),
                connections.len()
            ),
        );
        // As long as all that was done: what the judge and the report take for one.
        self.heal(&mut fault);
        append_lines(&self.dir.join("revocations.jsonl"), &revocations)?;
        faults.insert(0, fault);
        Ok(faults)
    }

    /// Each gateway and each logic is told to stop, and started again when it has.
    async fn roll_everyone(&mut self) -> anyhow::Result<Vec<FaultRecord>> {
        let mut faults = Vec::new();
        for role in [Role::Gateway, Role::Logic] {
            for _ in self.target.places(role) {
                faults.push(self.term(role).await?);
                self.turn += 1;
            }
        }
        Ok(faults)
    }
}

impl Revoker {
    /// One user after the other, until it is over.
    async fn until(&self, over: &CancellationToken) -> anyhow::Result<Vec<RevocationRecord>> {
        let mut revocations = Vec::new();
        for n in 1.. {
            let user = format!("{}-{n}", self.user);
            revocations.extend(self.one(&user).await?);
            if over.is_cancelled() {
                break;
            }
        }
        Ok(revocations)
    }

    /// From its connections to the end of its token; `None` when no gateway let it in.
    async fn one(&self, user: &str) -> anyhow::Result<Option<RevocationRecord>> {
        let token = token(&self.secret, user).context("no token for a user that is to be disconnected")?;
        let entered = join_all(self.urls.iter().map(|url| self.enter(url, &token))).await;
        let sockets: Vec<(String, Socket)> = entered.into_iter().flatten().collect();
        if sockets.is_empty() {
            sleep(PAUSE).await;
            return Ok(None);
        }
        let ends = join_all(sockets.into_iter().map(|(instance, socket)| self.end(instance, socket)));
        let rest = async {
            let (called_us, answered_us) = self.disconnect(user).await?;
            let (refused, accepted) = self.try_token(&token).await;
            anyhow::Ok((called_us, answered_us, refused, accepted))
        };
        let (connections, rest) = tokio::join!(ends, rest);
        let (called_us, answered_us, refused, accepted) = rest?;
        let (user, within_us) = (user.to_owned(), u64::try_from(WITHIN.as_micros()).unwrap_or(u64::MAX));
        Ok(Some(RevocationRecord { user, called_us, answered_us, within_us, connections, refused, accepted }))
    }

    /// A connection that was welcomed, and by whom.
    async fn enter(&self, url: &str, token: &str) -> Option<(String, Socket)> {
        let handshake = Handshake { trust: self.trust.clone(), ..Handshake::new(url).token(token) };
        let enter = async {
            let mut socket = Socket::connect(&handshake).await.ok()?;
            let first = socket.json().await.ok()?;
            let instance = first.get("welcome")?.get("instance")?.as_str()?.to_owned();
            Some((instance, socket))
        };
        timeout(TRY, enter).await.ok().flatten()
    }

    /// Reads a connection to its end.
    async fn end(&self, instance: String, mut socket: Socket) -> RevokedConnection {
        let read = async {
            loop {
                match socket.next().await {
                    Frame::Close { code, .. } => return Some(code),
                    Frame::End(_) => return None,
                    Frame::Text(_) | Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
                }
            }
        };
        // From its welcome on: a user is called for within less.
        match timeout(ANSWERED + END, read).await {
            Ok(code) => RevokedConnection { instance, closed_us: Some(self.clock.now_us()), code },
            Err(_) => RevokedConnection { instance, closed_us: None, code: None },
        }
    }

    /// Calls until a logic has told all gateways; when that call began, and was answered.
    async fn disconnect(&self, user: &str) -> anyhow::Result<(u64, u64)> {
        let (body, until) = (json!({ "user": user }).to_string(), Instant::now() + ANSWERED);
        let mut said = String::from("there is no logic");
        for turn in 0.. {
            let urls = self.api.urls();
            let url = urls.get(turn % urls.len().max(1)).cloned().unwrap_or_default();
            let called_us = self.clock.now_us();
            let call = self.calls.post(&url, "/v1/disconnect", self.api.key(), body.clone());
            match timeout(CALL, call).await {
                Ok(Ok(answer)) if answer.status == 200 => return Ok((called_us, self.clock.now_us())),
                Ok(Ok(answer)) => {
                    said = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
                }
                Ok(Err(reason)) => said = reason,
                Err(_) => said = format!("no answer within {CALL:?}"),
            }
            if Instant::now() >= until {
                break;
            }
            sleep(PAUSE).await;
        }
        anyhow::bail!("{user} could not be disconnected within {ANSWERED:?}: {said}")
    }

    /// Whether the token still opens anything: how often it did not, and where and when it did.
    async fn try_token(&self, token: &str) -> (u64, Vec<(String, u64)>) {
        let (mut refused, mut accepted) = (0, Vec::new());
        let until = Instant::now() + TRIED;
        while Instant::now() < until {
            let tries = self
                .urls
                .iter()
                .map(|url| async move { (self.clock.now_us(), self.enter(url, token).await) });
            for (began_us, entered) in join_all(tries).await {
                match entered {
                    Some((instance, _)) => accepted.push((instance, began_us)),
                    // Also one that was away: nobody came in by the token there.
                    None => refused += 1,
                }
            }
            sleep(PAUSE).await;
        }
        (refused, accepted)
    }
}
