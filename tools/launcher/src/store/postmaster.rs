//! The PostgreSQL that a Patroni runs. It is no child of ours and may be another one a second later, so it is known by the
//! file with its pid and by the folder it stands in: whoever was given the same pid meanwhile stands elsewhere.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::family;

/// Its pid; `None` while none runs on this data.
pub(super) fn of(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let stands_in = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (Some(stands_in) == data.canonicalize().ok()).then_some(pid)
}

/// Sends it a signal, one that stops or wakes it to its sessions too; `false` when there is none.
pub(super) fn signal(data: &Path, signal: Signal) -> bool {
    let Some(pid) = of(data) else { return false };
    let Ok(number) = i32::try_from(pid) else { return false };
    let to_it = || kill(Pid::from_raw(number), signal).is_ok();
    if matches!(signal, Signal::SIGSTOP | Signal::SIGCONT) {
        family::in_order(pid, signal, to_it)
    } else {
        to_it()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_stands_in_the_folder_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut own =
            std::process::Command::new("sleep").arg("60").current_dir(folder.path()).spawn().unwrap();
        assert_eq!(of(folder.path()), None);
        for (pid, found) in [(other.id(), false), (own.id(), true)] {
            std::fs::write(folder.path().join("postmaster.pid"), format!("{pid}\n/data\n")).unwrap();
            assert_eq!(of(folder.path()).is_some(), found);
        }
        assert!(signal(folder.path(), Signal::SIGKILL));
        own.wait().unwrap();
        assert!(!signal(folder.path(), Signal::SIGKILL));
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
