//! Lines of JSON to a client in another language, and from it. Neither way waits for the other: a pipe holds 64 KiB, one
//! message can fill it, and a client that waits until it is heard does not listen.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::time::{Instant, sleep_until};

use super::told::Told;

/// One that takes nothing for so long stands still.
const TAKES: Duration = Duration::from_secs(10);
/// Wishes that wait: a hundred of the largest messages, far more than [`TAKES`] of any load has.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) type Input = Box<dyn AsyncWrite + Send + Unpin>;
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Both ways.
pub(super) struct Wire {
    /// `None` = it was told to end.
    input: Option<Input>,
    output: Lines<BufReader<Output>>,
    /// Wishes that it has not taken.
    waiting: BytesMut,
    /// When it last took something, or there was nothing to take.
    took: Instant,
    /// No wish follows.
    is_over: bool,
}

impl Wire {
    pub(super) fn new(input: Input, output: Output) -> Self {
        Self {
            input: Some(input),
            output: BufReader::new(output).lines(),
            waiting: BytesMut::new(),
            took: Instant::now(),
            is_over: false,
        }
    }

    /// Hands a wish over, which goes while [`next`](Self::next) is waited for.
    ///
    /// # Errors
    /// When it has not taken much of what it was asked before.
    pub(super) fn ask(&mut self, wish: &impl Serialize) -> anyhow::Result<()> {
        if self.waiting.len() > WAITING_BYTES_MAX {
            bail!("it reads what it is asked too slowly");
        }
        if self.waiting.is_empty() {
            self.took = Instant::now();
        }
        self.waiting.extend_from_slice(&serde_json::to_vec(wish)?);
        self.waiting.extend_from_slice(b"\n");
        Ok(())
    }

    /// Lets its input end after the last wish: a goodbye.
    pub(super) fn finish(&mut self) {
        self.is_over = true;
    }

    /// What it tells next; `None` = it has ended. Nothing is lost when this is dropped.
    ///
    /// # Errors
    /// When it takes no wish any more, or tells what nobody knows.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Told>> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let told =
            serde_json::from_str(&line).with_context(|| format!("it tells what nobody knows: {line}"))?;
        Ok(Some(told))
    }

    async fn line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if self.is_over && self.waiting.is_empty() {
                self.input = None;
            }
            let has_wishes = !self.waiting.is_empty();
            let until = self.took + TAKES;
            tokio::select! {
                // Wishes first: there are few, and what is told may never pause.
                biased;
                taken = take(&mut self.input, &mut self.waiting), if has_wishes => {
                    taken.context("it takes no wish any more")?;
                    self.took = Instant::now();
                }
                line = self.output.next_line() => return Ok(line?),
                () = sleep_until(until), if has_wishes => bail!("it does not read what it is asked"),
            }
        }
    }
}

/// Some of what waits.
async fn take(input: &mut Option<Input>, waiting: &mut BytesMut) -> std::io::Result<()> {
    let Some(input) = input else { return Err(std::io::ErrorKind::BrokenPipe.into()) };
    if input.write_buf(waiting).await? == 0 {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::process::{Child, Command};

    use super::*;

    /// A real process behind real pipes.
    fn process(script: &str) -> (Wire, Child) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a shell");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        (Wire::new(Box::new(input), Box::new(output)), child)
    }

    /// `cat` reads no more while nobody reads what it has written: both pipes are full long before the last wish.
    #[tokio::test]
    async fn large_messages_never_fill_both_pipes_for_good() {
        let (mut wire, mut child) = process("exec cat");
        let large = "x".repeat(64 * 1024);
        for n in 0..64 {
            wire.ask(&format!("{n} {large}")).expect("there is room");
        }
        wire.finish();
        let mut heard = 0;
        while let Some(line) = wire.line().await.expect("it goes on") {
            assert!(line.starts_with(&format!("\"{heard} x")) && line.len() > large.len(), "{heard}");
            heard += 1;
        }
        assert!(heard == 64 && child.wait().await.expect("it ends").success(), "{heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_read_is_found() {
        let (mut wire, _child) = process("exec sleep 600");
        for _ in 0..4 {
            wire.ask(&"x".repeat(64 * 1024)).expect("there is room");
        }
        let began = Instant::now();
        let error = wire.line().await.expect_err("it never reads");
        assert!(error.to_string().contains("does not read"), "{error:#}");
        assert!(began.elapsed() >= TAKES);
        while wire.ask(&"x".repeat(64 * 1024)).is_ok() {
            assert!(wire.waiting.len() < 2 * WAITING_BYTES_MAX, "what waits is bounded");
        }
    }
}
