//! A process with its children. PostgreSQL is a family: a parent that stands still stops nobody's queries, and one that
//! is to stop waits for each of its own.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;

impl Process {
    /// Sends a signal to it and to its children; `false` when it has already ended.
    ///
    /// While the parent stands still it reaps nobody, so no pid of a child is given away: it is the first to stop and the
    /// last to go on.
    pub fn signal_family(&self, signal: Signal) -> bool {
        in_order(self.pid(), signal, || self.signal(signal))
    }
}

/// Signals the children of a parent, which is itself signalled by `to_parent`; returns what that did.
pub(crate) fn in_order(parent: u32, signal: Signal, to_parent: impl FnOnce() -> bool) -> bool {
    let children = || {
        for pid in children_of(parent) {
            let Ok(pid) = i32::try_from(pid) else { continue };
            kill(Pid::from_raw(pid), signal).ok(); // one that has ended meanwhile is still the parent's
        }
    };
    if signal == Signal::SIGSTOP {
        let hit = to_parent();
        children();
        hit
    } else {
        children();
        to_parent()
    }
}

pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state ppid …`; a name may hold anything, also blanks and brackets
        let parent_of =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent_of == Some(parent)
    };
    pids.filter(is_child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = children_of(std::process::id());
        assert!(found.contains(&child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
