//! What /proc says: CPU time of processes and their children, and what machine this is; and which cores a process may
//! use. Linux only.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU seconds of a process and its living children so far (PostgreSQL works in children).
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let own = stat(pid).map_or(0, |(_, cpu)| cpu);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter_map(stat).filter(|(parent, _)| *parent == pid);
    (own + children.map(|(_, cpu)| cpu).sum::<u64>()) as f64 / ticks_per_s()
}

/// CPU seconds of a process alone so far.
pub(crate) fn own_cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0, |(_, cpu)| cpu) as f64 / ticks_per_s()
}

fn ticks_per_s() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

/// The cores that this process may use.
pub(crate) fn cores() -> anyhow::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect())
}

/// Keeps all threads of a process on these cores, and whatever they start from now on.
pub(crate) fn keep_on(pid: u32, cores: &[usize]) -> anyhow::Result<()> {
    let mut allowed = CpuSet::new();
    cores.iter().try_for_each(|core| allowed.set(*core))?;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        if let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            sched_setaffinity(Pid::from_raw(thread), &allowed)?;
        }
    }
    Ok(())
}

/// Parent and CPU ticks: own, and of children that have ended.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?; // the name may hold anything
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some((fields.get(1)?.parse().ok()?, (11..15).filter_map(ticks).sum()))
}

/// One line about the machine, for the report.
pub(crate) fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}, load {load} before the start", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_use_some_cores_and_is_kept_on_them() {
        let all = cores().unwrap();
        assert!(!all.is_empty());
        keep_on(std::process::id(), &all).unwrap();
        assert_eq!(cores().unwrap(), all);
    }

    #[test]
    fn this_process_has_used_some_time() {
        let me = std::process::id();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while cpu_seconds(me) == 0.0 {
            assert!(std::time::Instant::now() < until, "10 s of work are not seen");
        }
    }
}
