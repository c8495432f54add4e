//! Who waits for a verdict on a token, and in which order they are asked about. Pure.

use std::collections::VecDeque;

use sluice_proto::limits::TOKENS_PER_CALL_MAX;
use tokio::time::Instant;

use super::super::turn::Budget;
use crate::address::Address;
use crate::defaults::{
    AUTHENTICATE_BYTES_MAX, KNOWN_IN_A_ROW_MAX, TOKENS_WAITING_BYTES_MAX, TOKENS_WAITING_MAX,
};
use crate::fair_queue::FairQueue;

/// Who asks with which token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenCheck {
    pub(super) who: Address,
    pub(super) token: String,
    /// Whether a client is behind it that is known already, and wants to stay.
    pub(super) is_known: bool,
    /// Not asked by then, it is answered that nobody could say.
    pub(super) by: Instant,
}

/// Tokens of a shard's clients that wait to be asked about.
#[derive(Debug)]
pub(in crate::shard) struct Authentications {
    newcomers: Waiting,
    /// Of clients that are known already: each of its own, so that a crowd that comes takes no place of those that are
    /// there, nor the other way round.
    known: Waiting,
    /// Those of the last call that have no verdict: they go first in the next one.
    again: VecDeque<TokenCheck>,
    /// Of known clients that were asked about since the last newcomer was.
    known_in_a_row: usize,
    /// Who waits is being looked at, or a call is under way.
    pub(super) asking: bool,
}

/// Those of one kind, each address in turn.
#[derive(Debug)]
struct Waiting {
    questions: FairQueue<Option<usize>, TokenCheck>,
    /// Of the tokens.
    bytes: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { questions: FairQueue::new(1), bytes: 0 }
    }
}

impl Waiting {
    fn push(&mut self, asker: Option<usize>, question: TokenCheck) -> Result<(), TokenCheck> {
        let bytes = self.bytes + question.token.len();
        if self.questions.len() >= TOKENS_WAITING_MAX || bytes > TOKENS_WAITING_BYTES_MAX {
            return Err(question);
        }
        self.bytes = bytes;
        self.questions.push(asker, question);
        Ok(())
    }

    fn pop(&mut self) -> Option<TokenCheck> {
        let question = self.questions.pop()?;
        self.bytes -= question.token.len();
        Some(question)
    }
}

impl Default for Authentications {
    fn default() -> Self {
        let (newcomers, known) = (Waiting::default(), Waiting::default());
        Self { newcomers, known, again: VecDeque::new(), known_in_a_row: 0, asking: false }
    }
}

impl Authentications {
    /// Appends to what waits for `asker`; gives it back when too much waits.
    pub(super) fn push(&mut self, asker: Option<usize>, question: TokenCheck) -> Result<(), TokenCheck> {
        let waiting = if question.is_known { &mut self.known } else { &mut self.newcomers };
        waiting.push(asker, question)
    }

    /// Takes back those of one call that have no verdict.
    pub(super) fn ask_again(&mut self, questions: impl Iterator<Item = TokenCheck>) {
        self.again.extend(questions);
    }

    /// The next one to look at: of known clients first, whose tokens end, but of newcomers after so many of those.
    pub(super) fn pop(&mut self) -> Option<TokenCheck> {
        if let Some(question) = self.again.pop_front() {
            return Some(question);
        }
        if self.known_in_a_row < KNOWN_IN_A_ROW_MAX {
            self.known.pop().or_else(|| self.newcomers.pop())
        } else {
            self.newcomers.pop().or_else(|| self.known.pop())
        }
    }

    /// It is asked about. Only that is a turn: who has left costs nobody one.
    pub(super) fn takes_turn(&mut self, question: &TokenCheck) {
        self.known_in_a_row = if question.is_known { self.known_in_a_row.saturating_add(1) } else { 0 };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.known.questions.is_empty() && self.newcomers.questions.is_empty()
    }
}

/// What becomes of a question whose turn it is.
#[derive(Debug)]
pub(super) enum Look {
    Ask(TokenCheck),
    /// Its client has left or has its answer.
    NoCall,
}

/// Looks at questions until there are as many to ask as one call takes, the turn is over, or none is left.
pub(super) fn gather(budget: Budget, mut look: impl FnMut() -> Option<Look>) -> Vec<TokenCheck> {
    let (mut asked, mut bytes) = (Vec::new(), 0);
    while asked.len() < TOKENS_PER_CALL_MAX && bytes < AUTHENTICATE_BYTES_MAX {
        match look() {
            Some(Look::Ask(question)) => {
                bytes += question.token.len();
                asked.push(question);
            }
            Some(Look::NoCall) => {}
            None => break,
        }
        if budget.is_spent() {
            break;
        }
    }
    asked
}

#[cfg(test)]
mod tests;
