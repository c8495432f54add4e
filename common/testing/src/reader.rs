//! Readers of a process that behave badly: what a log collector, a terminal or `head -1` may do.

use std::io::{PipeReader, PipeWriter, Read as _, pipe};

use nix::fcntl::{FcntlArg, fcntl};

/// What a pipe holds at least.
const PIPE_BYTES: i32 = 4096;

/// What reads the lines of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Nobody, from the start.
    Gone,
    /// Somebody, until the process is up.
    Leaves,
    /// Somebody who takes nothing, from a pipe of 4 KiB.
    Stuck,
}

/// The end of the pipe that a [`Reader`] holds.
#[derive(Debug)]
pub struct ReadEnd {
    reader: Reader,
    pipe: Option<PipeReader>,
}

impl Reader {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gone, Self::Leaves, Self::Stuck];

    /// Its end, to be held while the process lives, and the one to be given to the process.
    pub fn pipe(self) -> (ReadEnd, PipeWriter) {
        let (read, write) = pipe().unwrap();
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap();
        let pipe = (self != Self::Gone).then_some(read);
        (ReadEnd { reader: self, pipe }, write)
    }
}

impl ReadEnd {
    /// The process is up and has written something: the moment to leave.
    pub fn process_is_up(&mut self) {
        if self.reader == Reader::Leaves
            && let Some(mut pipe) = self.pipe.take()
        {
            assert!(pipe.read(&mut [0; PIPE_BYTES as usize]).unwrap() > 0, "nothing was written");
        }
    }
}
