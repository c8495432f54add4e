//! Reads a program's arguments. Help and version are output like any other: said to a closed pipe or a full disk they
//! end the program as everything else does.

use std::io::{self, Write};

use clap::Parser;

use crate::output::{heard, note};

/// The arguments, or the exit code when all is said with help, version or what is wrong with them.
///
/// # Errors
/// The exit code: 0, 1 when standard output takes nothing, 2 for wrong usage.
pub fn parse<T: Parser>() -> Result<T, u8> {
    T::try_parse().map_err(|said| {
        let written = said.print().and_then(|()| io::stdout().flush());
        match heard(written) {
            // What is wrong goes to standard error, and wrong it is whether or not somebody reads that.
            Err(_) if said.use_stderr() => 2,
            Err(error) => {
                note(format!("{}: {error}", T::command().get_name()));
                1
            }
            Ok(_) => u8::try_from(said.exit_code()).unwrap_or(2),
        }
    })
}
