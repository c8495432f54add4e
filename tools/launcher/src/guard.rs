//! Ends the children of a launcher that was killed: a shell that waits for the end of a pipe, which the system closes
//! however the launcher ends. It ends only what the record of the cluster names and still is the same process; nothing
//! begins before it is named there, see `held`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::record;

/// The PostgreSQL that a Patroni has started is in no record: it is known by where it stands.
/// `$1` is the record, `$2` a folder to be removed at the end, if any. Field 22 of `stat` is when a process began.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT
while read -r _; do :; done
is_same() {
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    began=$2
    set -- ${stat##*) }
    [ "$1" != Z ] && [ "${20}" = "$began" ]
}
living() {
    while read -r pid began signal name boot; do
        is_same "$pid" "$began" && echo "$pid ${1:-$signal}"
    done < "$record"
}
end() {
    living "$1" | while read -r pid signal; do kill -s "$signal" "$pid"; kill -s CONT "$pid"; done 2>/dev/null
}
postmasters() {
    for file in "${record%/*}"/postgres*/data/postmaster.pid; do
        read -r pid < "$file" && [ "/proc/$pid/cwd" -ef "${file%/*}" ] && echo "$pid"
    done 2>/dev/null
}
quit() {
    for pid in $(postmasters); do kill -s "$1" "$pid"; kill -s CONT "$pid"; done 2>/dev/null
}
record=$1
[ -f "$record" ] || exit 0
end
quit QUIT
looks=0
while [ -n "$(living)$(postmasters)" ] && [ "$looks" -lt 40 ]; do sleep 0.05; looks=$((looks + 1)); done
end KILL
quit KILL
[ -z "$2" ] || rm -rf -- "$2"
"#;

/// Lives as long as the cluster.
#[derive(Debug)]
pub(crate) struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// Begins to watch; the folder is removed too when the launcher is killed and it is `temporary`.
    pub(crate) fn start(folder: &Path, temporary: bool) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sluice-guard"]).arg(folder.join(record::FILE));
        shell.arg(if temporary { folder.as_os_str() } else { "".as_ref() });
        // a group of its own: what is sent to the launcher's group must not reach it
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = shell.spawn().map_err(|source| Error::Spawn { name: "sh".into(), source })?;
        Ok(Self(Mutex::new(Some(child))))
    }

    /// Nothing is left to be watched.
    pub(crate) fn end(&self) {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            // The end of the pipe is what it waits for.
            drop(child.stdin.take());
            child.wait().ok(); // bounded: its script is
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}
