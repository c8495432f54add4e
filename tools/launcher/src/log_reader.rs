//! Reads what a service logs and keeps it in a file, as a log collector would, and fails as one does when it is told
//! to: goes away, or stands still until the pipe is full. It knows no line.

use std::fs::OpenOptions;
use std::io::{ErrorKind, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::libc::O_NONBLOCK;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use crate::error::Error;

/// How the log of a process is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogReading {
    /// As it comes.
    #[default]
    Reads,
    /// Not at all, and the pipe is full: a collector that is stopped.
    Stuck,
    /// Nobody has the pipe's other end: a collector that has ended.
    Gone,
}

/// Bytes taken at once.
const READ_BYTES: usize = 16 * 1024;

/// The end for the process, and the work of the reader, which lasts as long as the process writes.
pub(crate) fn connect(
    log: PathBuf,
    mut reading: watch::Receiver<LogReading>,
) -> Result<(PipeWriter, impl Future<Output = ()> + Send + 'static), Error> {
    let failed = |error: std::io::Error| Error::System(format!("no pipe for a log: {error}"));
    let (read, write) = std::io::pipe().map_err(failed)?;
    // gone or stuck from the start means before the process can write its first line
    let initial = *reading.borrow_and_update();
    let pipe = match initial {
        LogReading::Gone => None,
        LogReading::Reads | LogReading::Stuck => Some(Receiver::from_owned_fd(read.into()).map_err(failed)?),
    };
    if let (LogReading::Stuck, Some(pipe)) = (initial, &pipe) {
        fill(pipe);
    }
    let work = async move {
        let Some(mut pipe) = pipe else { return };
        let Ok(mut file) = tokio::fs::OpenOptions::new().create(true).append(true).open(log).await else {
            return;
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let now = *reading.borrow_and_update();
            match now {
                LogReading::Gone => return,
                LogReading::Stuck => fill(&pipe),
                LogReading::Reads => {}
            }
            tokio::select! {
                biased;
                changed = reading.changed() => if changed.is_err() { return },
                read = pipe.read(&mut buffer), if now == LogReading::Reads => match read {
                    Ok(bytes) if bytes > 0 => {
                        if file.write_all(&buffer[..bytes]).await.is_err() || file.flush().await.is_err() {
                            return; // a full disk: nobody reads then
                        }
                    }
                    Ok(_) | Err(_) => return, // the process has ended
                },
            }
        }
    };
    Ok((write, work))
}

/// Fills the pipe, so that the next line of the process finds no space, however little it has to say. Through an end
/// of its own: the process' end must stay one that blocks.
fn fill(pipe: &Receiver) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let Ok(mut end) = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path) else { return };
    for bytes in [READ_BYTES, 1] {
        let filler = vec![b'.'; bytes];
        loop {
            match end.write(&filler) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break, // full
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn shell(script: &str, stderr: PipeWriter) -> std::process::Child {
        Command::new("sh").args(["-c", script]).stderr(stderr).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_reader_keeps_what_is_said_stands_still_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (reading, told) = watch::channel(LogReading::Reads);
        let (write, work) = connect(log.clone(), told.clone()).unwrap();
        let mut said = shell("echo hello >&2", write);
        work.await;
        said.wait().unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "hello\n");

        reading.send_replace(LogReading::Stuck);
        let (write, work) = connect(log.clone(), told.clone()).unwrap();
        let mut reader = tokio::task::JoinSet::new();
        reader.spawn(work);
        let mut stuck = shell("echo one >&2", write);
        // it cannot have ended: its line has no space; a look that comes too early proves nothing and harms nothing
        tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await.unwrap_err();
        assert!(stuck.try_wait().unwrap().is_none(), "it waits");
        reading.send_replace(LogReading::Gone);
        reader.join_next().await.unwrap().unwrap();
        assert!(!stuck.wait().unwrap().success(), "the pipe is broken");

        let (write, work) = connect(log, told).unwrap();
        work.await;
        let mut from_the_start = shell("echo one >&2", write);
        assert!(!from_the_start.wait().unwrap().success());
    }
}
