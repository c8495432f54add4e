//! Lines for whoever reads this process on standard error or standard output: a bounded queue, and a thread of its
//! own that writes.
//!
//! Whoever has a line to say never waits and never fails: a reader that is gone, stopped, or too slow costs lines, which
//! are counted, and nothing else. Not for what a command was asked to print: that may wait for its reader.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// What may wait for the reader: some ten thousand lines of the log.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an entry of the queue takes besides its text, so that empty lines have a bound too.
const ENTRY_BYTES: usize = 32;
/// What one write hands over at most (`PIPE_BUF`): a pipe takes that much in one piece, so that lines of several
/// processes in one pipe stay whole.
const WRITE_BYTES_MAX: usize = 4096;
/// Between two tries at a descriptor that somebody else made non-blocking.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// How long the last lines of a process may hold its end.
pub const LAST_LINES_WITHIN: Duration = Duration::from_millis(200);

/// Where lines go. Cheap to clone; clones are the same queue.
#[derive(Clone)]
pub struct Lines {
    shared: Arc<LineQueue>,
}

struct LineQueue {
    queue: Mutex<Queue>,
    arrived: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Whether the thread has some in hand.
    writing: bool,
    /// Whether there is a thread.
    served: bool,
}

static STDERR: OnceLock<Lines> = OnceLock::new();
static STDOUT: OnceLock<Lines> = OnceLock::new();

impl Lines {
    /// Those of standard error, for the log.
    pub fn stderr() -> &'static Self {
        STDERR.get_or_init(|| {
            Self::of(&io::stderr(), |lines| {
                tracing::warn!(lines, "Lines of this log were dropped: nobody took them.")
            })
        })
    }

    /// Those of standard output, for what a service or a launcher says by itself.
    pub fn stdout() -> &'static Self {
        STDOUT.get_or_init(|| {
            Self::of(&io::stdout(), |lines| {
                tracing::warn!(lines, "Lines for standard output were dropped: nobody took them.")
            })
        })
    }

    fn of(stream: &impl AsFd, again: fn(u64)) -> Self {
        // A descriptor of our own: the lock of `std` may be held by somebody who is stuck in a write.
        match stream.as_fd().try_clone_to_owned() {
            Ok(own) => Self::start(File::from(own), again),
            Err(_) => Self::unserved(),
        }
    }

    /// A queue with a thread that writes to `sink`; `again` is told how many lines were dropped, when writing works again.
    pub fn start(sink: impl Write + Send + 'static, again: fn(u64)) -> Self {
        let lines = Self::unserved();
        let shared = Arc::clone(&lines.shared);
        let started =
            thread::Builder::new().name("lines".to_owned()).spawn(move || shared.serve(sink, again));
        lines.shared.queue().served = started.is_ok();
        lines
    }

    /// Without a thread there is nobody to write: everything counts as dropped.
    fn unserved() -> Self {
        let (queue, arrived, emptied) = Default::default();
        Self { shared: Arc::new(LineQueue { queue, arrived, emptied, dropped: AtomicU64::new(0) }) }
    }

    /// Queues `text` and a line break; never waits.
    pub fn say(&self, text: &str) {
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        self.push(line.into());
    }

    fn push(&self, line: Box<[u8]>) {
        let cost = line.len() + ENTRY_BYTES;
        let mut queue = self.shared.queue();
        if queue.served && queue.bytes + cost <= QUEUE_BYTES_MAX {
            queue.bytes += cost;
            queue.waiting.push_back(line);
            drop(queue);
            self.shared.arrived.notify_one();
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was said is written or dropped, but not longer than `within`; whether it was.
    pub fn flush(&self, within: Duration) -> bool {
        let queue = self.shared.queue();
        let emptied = &self.shared.emptied;
        let waited =
            emptied.wait_timeout_while(queue, within, |queue| queue.writing || !queue.waiting.is_empty());
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !queue.writing && queue.waiting.is_empty()
    }

    /// How many lines nobody took.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// The last lines of this process, both streams: to be called before its end, which they may hold up only for
/// [`LAST_LINES_WITHIN`].
pub fn flush() {
    let end = Instant::now() + LAST_LINES_WITHIN;
    for lines in [STDOUT.get(), STDERR.get()].into_iter().flatten() {
        lines.flush(end.saturating_duration_since(Instant::now()));
    }
}

impl LineQueue {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way through a change, so a poisoned lock still guards whole data.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread.
    fn serve(&self, mut sink: impl Write, again: fn(u64)) {
        let (mut told, mut torn) = (0, false);
        loop {
            let (mut chunk, lines) = self.next();
            // Half a line was taken before: the next one begins on a line of its own.
            let lead = usize::from(torn);
            if torn {
                chunk.insert(0, b'\n');
            }
            let written = write(&mut sink, &chunk);
            let whole = written == chunk.len();
            if !whole {
                let ends = chunk[..written].iter().skip(lead).filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines.saturating_sub(ends) as u64, Ordering::Relaxed);
            }
            torn = chunk[..written].last().map_or(torn, |last| *last != b'\n');
            let idle = self.done();
            let dropped = self.dropped.load(Ordering::Relaxed);
            // Said only when there is room for it, and somebody who reads it.
            if idle && whole && dropped > told {
                again(dropped - told);
                told = dropped;
            }
        }
    }

    /// Waits for lines; gives as many as make one write.
    fn next(&self) -> (Vec<u8>, usize) {
        let queue = self.queue();
        let waited = self.arrived.wait_while(queue, |queue| queue.waiting.is_empty());
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut chunk, mut lines) = (Vec::new(), 0);
        while let Some(line) =
            queue.waiting.pop_front_if(|line| chunk.is_empty() || chunk.len() + line.len() <= WRITE_BYTES_MAX)
        {
            queue.bytes -= line.len() + ENTRY_BYTES;
            chunk.extend_from_slice(&line);
            lines += 1;
        }
        queue.writing = true;
        (chunk, lines)
    }

    /// What was in hand is written or dropped; whether nothing waits.
    fn done(&self) -> bool {
        let mut queue = self.queue();
        queue.writing = false;
        let idle = queue.waiting.is_empty();
        drop(queue);
        if idle {
            self.emptied.notify_all();
        }
        idle
    }
}

/// How much of `bytes` was taken: less than all when nobody takes more.
fn write(sink: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(TRY_AGAIN),
            Err(_) => break,
        }
    }
    written
}

/// One event of the log is one write, and one line.
impl Write for &Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// What was said about dropped lines when writing worked again. Tests are processes of their own.
    static TOLD: AtomicU64 = AtomicU64::new(0);

    /// Takes a byte for each permit; fails when there are no more permits to come.
    struct Reader(std::sync::mpsc::Receiver<usize>, Arc<Mutex<Vec<u8>>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let takes = self.0.recv().map_err(|_| ErrorKind::BrokenPipe)?.min(bytes.len());
            if takes == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.1.lock().unwrap().extend_from_slice(&bytes[..takes]);
            Ok(takes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Lines, SyncSender<usize>, Arc<Mutex<Vec<u8>>>) {
        let (permit, permits) = sync_channel(100);
        let read = Arc::new(Mutex::new(Vec::new()));
        (
            Lines::start(Reader(permits, Arc::clone(&read)), |lines| {
                let _ = TOLD.fetch_add(lines, Ordering::Relaxed);
            }),
            permit,
            read,
        )
    }

    fn text(read: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(read.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn nobody_waits_for_a_reader_that_takes_nothing_and_what_has_no_room_is_counted() {
        let (lines, _permit, _) = lines();
        let line = "x".repeat(1000);
        for _ in 0..10_000 {
            lines.say(&line);
        }
        let dropped = usize::try_from(lines.dropped()).unwrap();
        let room = QUEUE_BYTES_MAX / (1001 + ENTRY_BYTES);
        // The thread has some lines in hand by now, or not yet.
        assert!((10_000 - room - 5..=10_000 - room).contains(&dropped), "{dropped} of {room}");
        assert!(!lines.flush(Duration::from_millis(10)), "a flush has an end");
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_one_that_comes_back_gets_whole_ones() {
        let (lines, permit, read) = lines();
        permit.send(100).unwrap();
        lines.say("first");
        assert!(lines.flush(SOON));
        // Half of the second is taken, then nobody is there.
        permit.send(3).unwrap();
        permit.send(0).unwrap();
        lines.say("second");
        assert!(lines.flush(SOON));
        permit.send(0).unwrap();
        lines.say("third");
        assert!(lines.flush(SOON));
        assert_eq!((lines.dropped(), TOLD.load(Ordering::Relaxed)), (2, 0));
        permit.send(100).unwrap();
        lines.say("fourth");
        assert!(lines.flush(SOON));
        assert_eq!(text(&read), "first\nsec\nfourth\n");
        while TOLD.load(Ordering::Relaxed) != 2 {
            thread::yield_now();
        }
        drop(permit);
        lines.say("fifth");
        assert!(lines.flush(SOON));
        assert_eq!(lines.dropped(), 3);
    }

    #[test]
    fn lines_that_wait_are_written_together_and_none_is_cut() {
        let (lines, permit, read) = lines();
        for n in 0..1000 {
            lines.say(&format!("line {n:04}"));
        }
        let huge = "h".repeat(3 * WRITE_BYTES_MAX);
        lines.say(&huge);
        for _ in 0..30 {
            permit.send(usize::MAX).ok();
        }
        assert!(lines.flush(SOON));
        let text = text(&read);
        assert_eq!((text.lines().count(), lines.dropped()), (1001, 0));
        assert!(
            text.starts_with("line 0000\nline 0001\n") && text.ends_with(&format!("line 0999\n{huge}\n"))
        );
    }
}
