//! What a test has logged, for those who hold the log to account. One subscriber for all threads, because a scoped one
//! races with the tests beside it; each thread, and so each test on one, has its own lines.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct ToThread;

impl Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// From now on lines of this thread are kept.
pub fn keep_log() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| ToThread).init());
}

/// The lines of this thread so far that contain this.
pub fn logged(text: &str) -> Vec<String> {
    let all = LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).into_owned());
    all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}
