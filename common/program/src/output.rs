//! What a program says on standard output and standard error. `println!` panics where nobody reads; here a reader that
//! has gone away is no fault, and a device that takes nothing (a full disk) is an error with its own text.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Standard output takes nothing. It has the cause in its own text, and as no source: `{:#}` would say it again.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Unwritten(io::Error);

/// One line. Fine also when nobody reads any more: what the program did is told by its exit code.
///
/// # Errors
/// [`Unwritten`]
pub fn line(text: impl Display) -> Result<(), Unwritten> {
    offer(text).map(drop)
}

/// Text of several lines that ends with one. Otherwise like [`line()`].
///
/// # Errors
/// [`Unwritten`]
pub fn text(text: &str) -> Result<(), Unwritten> {
    heard(put(|out| out.write_all(text.as_bytes()))).map(drop)
}

/// One line of many; whether there is still somebody who reads.
///
/// # Errors
/// [`Unwritten`]
pub fn offer(text: impl Display) -> Result<bool, Unwritten> {
    heard(put(|out| writeln!(out, "{text}")))
}

/// One line on standard error. There is nobody to tell when that cannot be written.
pub fn note(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}

fn put(write: impl FnOnce(&mut io::StdoutLock<'static>) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out).and_then(|()| out.flush())
}

/// Whether it was taken, or the reader has gone.
pub(crate) fn heard(written: io::Result<()>) -> Result<bool, Unwritten> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Unwritten(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
        let failed = |kind| heard(Err(io::Error::from(kind)));
        assert!(heard(Ok(())).unwrap());
        assert!(!failed(ErrorKind::BrokenPipe).unwrap());
        let said = failed(ErrorKind::StorageFull).unwrap_err().to_string();
        assert!(said.starts_with("cannot write to standard output: "), "{said}");
    }
}
