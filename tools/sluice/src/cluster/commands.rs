//! Commands on standard input, one JSON object per line. A terminal is left alone unless asked for: reading it would
//! stop a cluster that runs in the background.

use std::io::{BufRead, IsTerminal, Read};

use serde::Deserialize;
use sluice_launcher::Service;
use tokio::sync::mpsc;

/// Longest line read, bytes.
const LINE_BYTES_MAX: u64 = 4_096;
/// Lines read ahead.
const LINES: usize = 16;

/// `{"start":"logic"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    #[serde(rename = "start")]
    pub(super) service: Service,
    /// This very place; without it one that has ended, is stopping, or one more.
    pub(super) index: Option<usize>,
}

pub(super) struct Commands(Option<mpsc::Receiver<String>>);

impl Commands {
    /// Begins to read. The thread ends with the input, or with the process.
    pub(super) fn listen(also_terminal: bool) -> std::io::Result<Self> {
        if std::io::stdin().is_terminal() && !also_terminal {
            return Ok(Self(None));
        }
        let (lines, received) = mpsc::channel(LINES);
        std::thread::Builder::new().name("commands".into()).spawn(move || read(&lines))?;
        Ok(Self(Some(received)))
    }

    /// The next command, or why a line is none. After the end of the input it waits for ever. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Start, String> {
        loop {
            let line = match &mut self.0 {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            };
            match line {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => return parse(&line),
                None => self.0 = None,
            }
        }
    }
}

fn read(lines: &mpsc::Sender<String>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if lines.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        }
    }
}

fn parse(line: &str) -> Result<Start, String> {
    let line = line.trim();
    serde_json::from_str(line)
        .map_err(|error| format!("cannot use {line:?}: {error}; write for example {{\"start\":\"logic\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let start = parse(" {\"start\":\"logic\"}\n").unwrap();
        assert_eq!((start.service, start.index), (Service::Logic, None));
        assert_eq!(parse(r#"{"start":"gateway","index":1}"#).unwrap().index, Some(1));
        for text in ["start", "{}", r#"{"start":"cat"}"#, r#"{"start":"logic","x":1}"#] {
            assert!(parse(text).unwrap_err().contains("for example"), "{text}");
        }
    }
}
