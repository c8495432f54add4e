//! One more client that only asks: presence and history, when the run wants to know. Its pages are in the records. It
//! subscribes to nothing, so that presence does not see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_client::{Client, Error, HistoryRange, Options};
use sluice_judge::record::{ClientEvent, PageMessage};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::library::page;
use super::recorder::OWN_WISH;
use super::shared::LoadShared;
use crate::records::{RecordWriter, Records};

/// Its name.
const USER: &str = "query-client";
/// A question is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// One answer comes within this.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// Most messages of a page.
const PAGE: u32 = 256;

#[derive(Debug)]
pub(super) struct QueryClient {
    shared: Arc<LoadShared>,
    writer: RecordWriter,
    /// Made at the first question; its events are read by nobody, only the first connection is written down.
    client: Mutex<Option<Client>>,
    conns: AtomicU32,
}

impl QueryClient {
    pub(super) fn begin(shared: &Arc<LoadShared>, records: &Records) -> Self {
        let writer = records.writer(shared.plan.everybody() + 1);
        let (role, kind) = ("query-client".to_owned(), "library".to_owned());
        writer.note(&ClientEvent::Client { user: USER.to_owned(), role, kind });
        let (client, conns) = (Mutex::new(None), AtomicU32::new(0));
        Self { shared: Arc::clone(shared), writer, client, conns }
    }

    pub(super) async fn presence(&self, room: &str) -> anyhow::Result<BTreeMap<String, u32>> {
        let users = self.ask(async |client| client.presence(room).await).await;
        let users = users.with_context(|| format!("presence of {room} could not be asked"))?;
        Ok(users.into_iter().map(|user| (user.user, user.connections)).collect())
    }

    pub(super) async fn history(&self, room: &str, before: Option<u64>) -> anyhow::Result<Vec<PageMessage>> {
        let range = before.map_or(HistoryRange::Newest, HistoryRange::Before);
        let page_asked = self.ask(async |client| client.history(room, range, Some(PAGE)).await).await;
        let messages = page_asked
            .map(|page| page.messages)
            .with_context(|| format!("history of {room} could not be asked"))?;
        let what = page(self.conns.load(Relaxed), room, before, &messages);
        self.writer.note(&what);
        let ClientEvent::History { messages, .. } = what else { bail!("a page is a page") };
        Ok(messages)
    }

    async fn ask<T>(&self, question: impl AsyncFn(&Client) -> Result<T, Error>) -> anyhow::Result<T> {
        // One question at a time: a second client for the second question would have to be told apart in the
        // records.
        let mut held = self.client.lock().await;
        let start = Instant::now();
        loop {
            let answer = match &*held {
                Some(client) => timeout(ANSWER, question(client)).await.ok(),
                None => {
                    *held = self.connect().await;
                    None
                }
            };
            match answer {
                Some(Ok(answer)) => return Ok(answer),
                // The service has answered: asking again would hide what it says.
                Some(Err(error @ Error::Answer(_))) => return Err(error.into()),
                _ if start.elapsed() > PATIENCE => bail!("no answer within {PATIENCE:?}"),
                Some(Err(_)) => self.drop_client(held.take(), "broken").await,
                // It has just been made: the question is asked without a pause.
                None if held.is_some() => {}
                None => sleep(AGAIN).await,
            }
        }
    }

    async fn connect(&self) -> Option<Client> {
        let endpoints = &self.shared.endpoints;
        let mut urls = endpoints.from(0).into_iter();
        let url = urls.next().unwrap_or_default();
        let mut options = urls.fold(Options::new(url.clone()), Options::or).trust(endpoints.trust());
        if let Some(token) = endpoints.token(USER) {
            options = options.token(token);
        }
        match Client::connect(options).await {
            Ok((client, mut events)) => {
                let conn = self.conns.fetch_add(1, Relaxed) + 1;
                if let Some(sluice_client::Event::Connected(welcome)) = events.next().await {
                    let (instance, epoch) = (welcome.instance, welcome.epoch);
                    self.writer.note(&ClientEvent::Open { conn, url, instance, epoch });
                }
                Some(client)
            }
            Err(error) => {
                self.writer.note(&ClientEvent::Failed { url, reason: error.to_string() });
                None
            }
        }
    }

    async fn drop_client(&self, client: Option<Client>, reason: &str) {
        let Some(client) = client else { return };
        client.close().await;
        let (conn, code) = (self.conns.load(Relaxed), OWN_WISH);
        self.writer.note(&ClientEvent::Closed { conn, code, reason: reason.to_owned() });
    }

    pub(super) async fn end(&self) {
        let client = self.client.lock().await.take();
        self.drop_client(client, "goodbye").await;
        self.writer.note(&ClientEvent::End);
    }
}
