//! The line on standard error that says how a run goes: written over in a terminal, a line for each round elsewhere.

use std::io::{IsTerminal, Write};

use crate::load::Progress;

/// Who writes it.
#[derive(Debug)]
pub struct StatusLine {
    terminal: bool,
    quiet: bool,
}

impl StatusLine {
    /// Standard error; `quiet` says nothing at all.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), quiet }
    }

    /// Something that passes.
    pub fn now(&self, what: &str, progress: Option<&Progress>) {
        if self.terminal {
            self.write(&format!("\r\x1b[2K{}", line(what, progress)));
        }
    }

    /// Something that stays.
    pub fn done(&self, what: &str, progress: Option<&Progress>) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        self.write(&format!("{clear}{}\n", line(what, progress)));
    }

    fn write(&self, text: &str) {
        if !self.quiet {
            // nobody reads any more: the run goes on
            let mut out = std::io::stderr().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
        }
    }
}

fn line(what: &str, progress: Option<&Progress>) -> String {
    match progress {
        None => what.to_owned(),
        Some(progress) => format!(
            "{what:<44} acked {:>7}  delivered {:>8}  waiting {:>4}  connected {:>4}  reconnects {:>5}",
            progress.acked, progress.delivered, progress.unanswered, progress.connected, progress.reconnects
        ),
    }
}
