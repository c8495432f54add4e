//! A worker as the measuring process sees it: started from this very binary, given its job, asked for snapshots.
//! Dropping it ends it.

use std::process::Stdio;

use anyhow::Context;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Process};

use crate::spec::{Command, Job, Ready, Snapshot};

pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) pid: u32,
    pub(crate) ready: Ready,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub(crate) async fn start(job: &Job) -> anyhow::Result<Self> {
        let mut process = Process::new(std::env::current_exe()?);
        process.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = process.spawn().context("cannot start a worker")?;
        let mut input = child.stdin.take().context("no pipe to the worker")?;
        let output = child.stdout.take().context("no pipe from the worker")?;
        let mut output = BufReader::new(output).lines();
        send(&mut input, job).await?;
        let ready = receive(&mut output).await?;
        let pid = child.id().context("the worker has ended")?;
        Ok(Self { child, input, output, pid, ready })
    }

    pub(crate) async fn go(&mut self) -> anyhow::Result<()> {
        send(&mut self.input, &Command::Go).await
    }

    pub(crate) async fn peek(&mut self) -> anyhow::Result<Snapshot> {
        send(&mut self.input, &Command::Peek).await?;
        receive(&mut self.output).await
    }

    pub(crate) async fn mark(&mut self) -> anyhow::Result<Snapshot> {
        send(&mut self.input, &Command::Mark).await?;
        receive(&mut self.output).await
    }

    /// A mark of a worker that measures something of its own.
    pub(crate) async fn seen<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        send(&mut self.input, &Command::Mark).await?;
        receive(&mut self.output).await
    }

    /// Ends it by the end of its input, and hears its last words.
    pub(crate) async fn stop<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let Self { mut child, input, mut output, .. } = self;
        drop(input);
        let words = receive(&mut output).await?;
        child.wait().await?;
        Ok(words)
    }

    /// Ends it and waits until it is gone, with all its connections.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.input);
        self.child.wait().await?;
        Ok(())
    }
}

async fn send(input: &mut ChildStdin, what: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    input.write_all(&line).await.context("a worker has ended")
}

async fn receive<T: DeserializeOwned>(output: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<T> {
    let line = output.next_line().await?.context("a worker has ended, it said why above")?;
    Ok(serde_json::from_str(&line)?)
}
