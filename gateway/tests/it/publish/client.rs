//! A client of the model: pipelines publishes, and after a reconnect sends everything unanswered again,
//! in order, same keys, before anything new. Tests only.

use serde_json::{Value, json};

use super::Mutant;

/// What a client knows of one of its publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Unsent,
    Unanswered,
    Ok(u64),
    Refused,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) room: &'static str,
    pub(super) keyed: bool,
    pub(super) poison: bool,
    pub(super) known: Known,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) plan: Vec<Planned>,
    /// Gateway and slot of the open connection.
    pub(super) connection: Option<(usize, usize)>,
    /// Publishes to send on this connection before anything new.
    pub(super) resend: Vec<usize>,
    pub(super) broken: Option<String>,
}

impl Client {
    /// The next publish to send, as index and frame.
    pub(super) fn next(&mut self, mutant: Option<Mutant>) -> Option<String> {
        let fresh = self.plan.iter().position(|planned| planned.known == Known::Unsent);
        let new_first = mutant == Some(Mutant::NewBeforeUnanswered);
        let n = match (self.resend.first().copied(), fresh) {
            (Some(_), Some(fresh)) if new_first => fresh,
            (Some(n), _) => {
                self.resend.remove(0);
                n
            }
            (None, fresh) => fresh?,
        };
        self.plan[n].known = Known::Unanswered;
        Some(self.frame(n))
    }

    fn frame(&self, n: usize) -> String {
        let planned = &self.plan[n];
        let mut frame =
            json!({"pub": planned.room, "data": [self.name.split('+').next(), n, planned.poison], "id": n});
        if planned.keyed {
            frame["key"] = json!(format!("k{n}"));
        }
        frame.to_string()
    }

    /// A frame from the gateway; true if it says goodbye.
    pub(super) fn hear(&mut self, frame: &str) -> bool {
        let frame: Value = serde_json::from_str(frame).expect("valid JSON");
        if frame.get("bye").is_some() {
            return true;
        }
        let Some(n) = frame["id"].as_u64().and_then(|n| usize::try_from(n).ok()) else { return false };
        let planned = &mut self.plan[n];
        if planned.known != Known::Unanswered {
            self.broken = Some(format!("{} {n}: a second answer {frame}", self.name));
            return false;
        }
        if frame["ok"] == "pub" {
            planned.known = Known::Ok(frame["seq"].as_u64().expect("seq"));
        } else if frame["error"]["retry"] == false {
            planned.known = Known::Refused;
        } else if !planned.keyed && frame["error"]["code"] != "not_sent" {
            planned.known = Known::Unknown;
        }
        false
    }

    /// The connection is gone: what is unanswered is sent again; without key it stays unknown, unless it
    /// was answered as certainly not sent (then it is still `Unanswered` and `safe`).
    pub(super) fn lost(&mut self, said_goodbye: bool) {
        self.connection = None;
        for planned in &mut self.plan {
            if planned.known == Known::Unanswered && !planned.keyed && !said_goodbye {
                planned.known = Known::Unknown;
            }
        }
    }

    pub(super) fn connected(&mut self, gateway: usize, slot: usize) {
        self.connection = Some((gateway, slot));
        self.resend = (0..self.plan.len()).filter(|n| self.plan[*n].known == Known::Unanswered).collect();
    }

    pub(super) fn finished(&self) -> bool {
        self.plan.iter().all(|planned| !matches!(planned.known, Known::Unsent | Known::Unanswered))
    }
}
