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

/// `{"start":"logic"}`, `{"start":"logic-1"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    start: String,
    index: Option<usize>,
}

/// What is to be started.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) service: Service,
    /// The place in the list of its service, from 0; without it one that has ended, is stopping, or one more.
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
        // A thread of its own: a read of standard input cannot be called off, and the process must not wait for
        // it when it ends.
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
                // The end of input is no command to stop: whoever started this may have given it /dev/null.
                None => self.0 = None,
            }
        }
    }
}

fn read(lines: &mpsc::Sender<String>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        // Bounded: a line without an end comes in pieces, each of which is refused.
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
    let wrong =
        |why: String| format!("cannot use {line:?}: {why}; write for example {{\"start\":\"logic\"}}");
    let Line { start, index } = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    // Both count from 1, as the names in every list do.
    let from_zero = |number: usize| number.checked_sub(1);
    let (service, named) = match start.split_once('-') {
        Some((service, number)) => (service, number.parse().ok().and_then(from_zero)),
        None => (start.as_str(), index.and_then(from_zero)),
    };
    if index == Some(0) {
        return Err(wrong("instances are counted from 1".to_owned()));
    }
    let service = service.parse().map_err(|_| wrong(format!("there is no service {service:?}")))?;
    if start.contains('-') && (named.is_none() || index.is_some()) {
        return Err(wrong("a name ends in a number from 1, and is enough".to_owned()));
    }
    Ok(Start { service, index: named })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let start = parse(" {\"start\":\"logic\"}\n").unwrap();
        assert_eq!((start.service, start.index), (Service::Logic, None));
        assert_eq!(parse(r#"{"start":"gateway","index":2}"#).unwrap().index, Some(1));
        assert_eq!(parse(r#"{"start":"gateway-2"}"#).unwrap().index, Some(1));
        for text in [
            "start",
            "{}",
            r#"{"start":"cat"}"#,
            r#"{"start":"logic","x":1}"#,
            r#"{"start":"logic-0"}"#,
            r#"{"start":"logic-x"}"#,
            r#"{"start":"logic","index":0}"#,
            r#"{"start":"logic-1","index":1}"#,
        ] {
            assert!(parse(text).unwrap_err().contains("for example"), "{text}");
        }
    }
}
