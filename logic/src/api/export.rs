//! A room from a position to where its head was at the beginning, one message a line. Read page by page as the other
//! end takes it. However it ends, the last line says why and where to go on: a file without it was cut.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use serde_json::json;
use sluice_proto::grpc::Message;
use sluice_proto::ids::{Epoch, RoomId};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::counts::CountedCall;
use super::keys::ApiKey;
use super::look::{ReadPage, stored_message};
use super::problem::{Code, Problem};
use super::types::ExportQuery;

/// The content type of an export.
pub const NDJSON: &str = "application/x-ndjson";

/// Lines that are handed over together, bytes: little is under way when a stop ends it.
const LINES_BYTES: usize = 64 * 1024;

/// An export that is under way.
pub struct Export {
    api: Arc<Api>,
    key: Arc<ApiKey>,
    room: RoomId,
    epoch: u64,
    /// The last position that was handed over.
    after: u64,
    /// The last one that is to be.
    until: u64,
    /// The page that was read to see whether there is anything.
    first: Option<ReadPage>,
    /// What is handed over next.
    waiting: VecDeque<Message>,
    has_ended: bool,
    call: CountedCall,
    _places: [OwnedSemaphorePermit; 2],
}

/// How an export ends.
enum End {
    /// Everything was handed over.
    Complete,
    /// This process stops.
    Draining,
    /// The key is not good any more.
    Unauthorized,
    /// The store has another history than at the beginning.
    Epoch,
    /// A page could not be read.
    Failed(Problem),
}

impl Api {
    /// Begins an export: whatever is wrong with the question is said before the first line.
    ///
    /// # Errors
    /// What is wrong with the question, or why it cannot be answered now.
    pub async fn export(
        self: &Arc<Self>,
        key: &Arc<ApiKey>,
        query: ExportQuery,
        call: CountedCall,
    ) -> Result<Export, Box<(CountedCall, Problem)>> {
        let begin = async {
            let room = RoomId::parse(&query.room)?;
            key.may_read(&room)?;
            let full =
                || Problem::new(Code::RateLimited, "too many exports are under way: wait for one to end");
            let of_key = Arc::clone(&key.exports).try_acquire_owned().map_err(|_| full())?;
            let of_all = Arc::clone(&self.exports).try_acquire_owned().map_err(|_| full())?;
            let after = query.after.unwrap_or(0);
            let page = self.read_after(&room, after).await?;
            Ok((room, after, page, [of_key, of_all]))
        };
        match begin.await {
            Ok((room, after, page, places)) => Ok(Export {
                api: Arc::clone(self),
                key: Arc::clone(key),
                room,
                epoch: page.epoch,
                after,
                until: page.head,
                first: Some(page),
                waiting: VecDeque::new(),
                has_ended: false,
                call,
                _places: places,
            }),
            Err(problem) => Err(Box::new((call, problem))),
        }
    }
}

impl Export {
    /// The lines, some at a time.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        unfold(self, |mut export| async move {
            // Only when the last line was taken too: a stop waits until then.
            if export.has_ended {
                return None;
            }
            let mut lines = String::new();
            if let Some(end) = export.step(&mut lines).await {
                export.has_ended = true;
                lines.push_str(&export.last_line(end));
            }
            Some((Ok(Bytes::from(lines)), export))
        })
    }

    /// Some lines, and why there are no more.
    async fn step(&mut self, lines: &mut String) -> Option<End> {
        if self.waiting.is_empty() && self.after < self.until {
            match self.next_page().await {
                Ok(page) => self.take(page, lines),
                Err(end) => return Some(end),
            }
        }
        while lines.len() < LINES_BYTES {
            let Some(message) = self.waiting.pop_front() else { break };
            let seq = message.seq;
            let line = stored_message(message).and_then(|message| {
                let text = serde_json::to_string(&message);
                text.map_err(|error| Problem::new(Code::Internal, error.to_string()))
            });
            match line {
                Ok(line) => lines.extend([line.as_str(), "\n"]),
                Err(problem) => return Some(End::Failed(problem)),
            }
            self.after = seq;
        }
        if self.after >= self.until {
            Some(End::Complete)
        } else if self.api.refuse.is_cancelled() {
            Some(End::Draining)
        } else if !self.api.keys.is_good(&self.key, self.api.clock.now_ms()) {
            Some(End::Unauthorized)
        } else {
            None
        }
    }

    async fn next_page(&mut self) -> Result<ReadPage, End> {
        if let Some(page) = self.first.take() {
            return Ok(page);
        }
        let read = self.api.read_after(&self.room, self.after);
        match self.api.refuse.run_until_cancelled(read).await {
            None => Err(End::Draining),
            Some(Err(problem)) => Err(End::Failed(problem)),
            Some(Ok(page)) if page.epoch != self.epoch => Err(End::Epoch),
            Some(Ok(page)) => Ok(page),
        }
    }

    /// What is handed over next; what retention removed, before or while we read, is told.
    fn take(&mut self, page: ReadPage, lines: &mut String) {
        let next = page.messages.first().map_or(page.oldest, |message| message.seq);
        if next > self.after + 1 {
            let to = (next - 1).min(self.until);
            lines.push_str(&json!({ "skipped": { "from": self.after + 1, "to": to } }).to_string());
            lines.push('\n');
            self.after = to;
        }
        self.waiting.extend(page.messages.into_iter().take_while(|message| message.seq <= self.until));
    }

    /// Why it ends and where to go on; also what is counted.
    fn last_line(&mut self, end: End) -> String {
        let stopped = || {
            let detail = "this process stops: go on from there, at once with another one or in a second";
            Problem::new(Code::NotSent, detail)
        };
        let (reason, problem) = match end {
            End::Complete => ("complete", None),
            End::Draining => ("draining", Some(stopped())),
            End::Unauthorized => {
                ("unauthorized", Some(Problem::new(Code::Unauthorized, "the key is not good any more")))
            }
            End::Epoch => (
                "epoch",
                Some(Problem::new(
                    Code::Conflict,
                    "the store was restored meanwhile: what was exported belongs to another history, begin again",
                )),
            ),
            End::Failed(problem) => ("failed", Some(problem)),
        };
        // A stop cuts it short, whatever it says.
        let code = problem.as_ref().map(|problem| problem.code);
        let code = code.map(|code| if code == Code::NotSent { Code::Unavailable } else { code });
        self.call.ends_with(code);
        let mut end = json!({
            "reason": reason,
            "room": self.room.as_str(),
            "epoch": Epoch(self.epoch).to_string(),
            "after": self.after,
            "more": self.after < self.until,
        });
        if let (Some(end), Some(problem)) = (end.as_object_mut(), problem) {
            end.insert("code".into(), json!(problem.code.as_str()));
            end.insert("detail".into(), json!(problem.detail));
            end.insert("retry".into(), json!(problem.code.retry()));
            if reason == "draining" {
                let stage = self.api.lifecycle.stage();
                end.insert("state".into(), json!(stage.state().as_str()));
                end.insert("stage".into(), json!(stage.as_str()));
            }
        }
        format!("{}\n", json!({ "end": end }))
    }
}
