//! When a platform kills what does not stop: read from a unit, a Compose file or a manifest, and held against the time
//! that a stop may take. Pure. It reads lines, not YAML: what a template would fill in has to be filled in.

mod duration;

use std::fmt;
use std::time::Duration;

use sluice_launcher::Service;
use sluice_lifecycle::WATCHDOG_MARGIN;

use duration::duration;

/// A kill timer in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KillTimer {
    setting: &'static str,
    /// Where it is set, counted from 1; `None`: nowhere, it is the platform's default.
    line: Option<usize>,
    /// Whose it is, where the file says so.
    pub(super) service: Option<Service>,
    /// `None`: it never kills.
    after: Option<Duration>,
}

/// A kill timer that ends a stop before it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooShort {
    timer: KillTimer,
    after: Duration,
    total: Duration,
}

impl KillTimer {
    /// Whether a stop that takes `total` is cut.
    pub(super) fn against(&self, total: Duration) -> Option<TooShort> {
        let after = self.after.filter(|after| *after <= total + WATCHDOG_MARGIN)?;
        Some(TooShort { timer: self.clone(), after, total })
    }
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timer: KillTimer { setting, line, service, .. }, after, total } = self;
        match line {
            Some(line) => write!(f, "line {line}: {setting} is {after:?}")?,
            None => write!(f, "{setting} is not set and so {after:?}")?,
        }
        let whose = service.map(|service| format!(" of {service}")).unwrap_or_default();
        let enough = (*total + WATCHDOG_MARGIN).as_secs() + 1;
        write!(
            f,
            ", but a stop{whose} may take {total:?} and {WATCHDOG_MARGIN:?} more: set it to {enough} s or more, or \
             lower shutdown.total_ms"
        )
    }
}

/// A line without its comment.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// What stands behind `key` and what divides it from its value.
    fn value(&self, key: &str) -> Option<&'a str> {
        let rest = self.text.trim_start_matches("- ").strip_prefix(key)?;
        Some(rest.strip_prefix([':', '='])?.trim())
    }
}

/// The kill timers of a file; `variable` is what the environment has.
///
/// # Errors
/// It is no file of this kind, or a value cannot be read: what to do instead.
pub(super) fn kill_timers(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<KillTimer>, String> {
    let lines: Vec<Line<'_>> = lines(text).collect();
    let reading = Reading { variable: &variable };
    let has = |found: &dyn Fn(&Line<'_>) -> bool| lines.iter().any(found);
    if has(&|line| line.text == "[Service]") {
        reading.unit(&lines)
    } else if has(&|line| line.indent == 0 && line.value("services").is_some()) {
        reading.compose(&lines)
    } else if has(&|line| line.value("kind").is_some()) {
        reading.manifest(&lines)
    } else {
        Err("this is no unit of systemd, no Compose file and no manifest of Kubernetes".to_owned())
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let without_comment = |line: &'_ str| -> usize { line.find(" #").unwrap_or(line.len()) };
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        let line = &line[..without_comment(line)];
        let text = line.trim();
        let is_comment = text.is_empty() || text.starts_with(['#', ';']);
        (!is_comment).then(|| Line { number, indent: line.len() - line.trim_start().len(), text })
    })
}

/// Parts that each begin with a line as far to the left as the first one.
fn blocks<'b, 'a>(lines: &'b [Line<'a>]) -> impl Iterator<Item = &'b [Line<'a>]> {
    let left = lines.first().map_or(0, |line| line.indent);
    lines.chunk_by(move |_, next| next.indent > left)
}

/// Where a block sets this.
fn set<'a>(block: &[Line<'a>], setting: &str) -> Option<Line<'a>> {
    block.iter().find(|line| line.value(setting).is_some()).copied()
}

/// Whose block this is: by the program in it, or by its name.
fn service_of(block: &[Line<'_>]) -> Option<Service> {
    let names = |service: Service, line: &Line<'_>| line.text.contains(&format!("sluice-{service}"));
    let by_program = |service: &Service| block.iter().any(|line| names(*service, line));
    let by_name =
        |service: &Service| block.first().is_some_and(|line| line.text.starts_with(service.as_str()));
    Service::SERVICES.into_iter().find(|service| by_program(service) || by_name(service))
}

struct Reading<'v> {
    variable: &'v dyn Fn(&str) -> Option<String>,
}

impl Reading<'_> {
    fn unit(&self, lines: &[Line<'_>]) -> Result<Vec<KillTimer>, String> {
        const SETTING: &str = "TimeoutStopSec";
        let service = service_of(lines);
        // The last one counts; the other sets this one too.
        let set = |line: &&Line<'_>| line.value(SETTING).or(line.value("TimeoutSec")).is_some();
        let timer = match lines.iter().rfind(set) {
            Some(line) => self.timer(SETTING, line, service)?,
            None => default(SETTING, 90, service),
        };
        Ok(vec![timer])
    }

    fn compose(&self, lines: &[Line<'_>]) -> Result<Vec<KillTimer>, String> {
        const SETTING: &str = "stop_grace_period";
        let mut timers = Vec::new();
        for block in blocks(lines) {
            let Some((head, children)) = block.split_first() else { continue };
            if head.value("services").is_none() {
                // What services have in common.
                let line = set(block, SETTING).filter(|_| head.text.starts_with("x-"));
                timers.extend(line.map(|line| self.timer(SETTING, &line, service_of(block))).transpose()?);
                continue;
            }
            for one in blocks(children) {
                // The stores have their own times.
                let Some(service) = service_of(one) else { continue };
                let inherits = one.iter().any(|line| line.value("<<").or(line.value("extends")).is_some());
                match set(one, SETTING) {
                    Some(line) => timers.push(self.timer(SETTING, &line, Some(service))?),
                    None if inherits => {}
                    None => timers.push(default(SETTING, 10, Some(service))),
                }
            }
        }
        Ok(timers)
    }

    fn manifest(&self, lines: &[Line<'_>]) -> Result<Vec<KillTimer>, String> {
        const SETTING: &str = "terminationGracePeriodSeconds";
        let mut timers = Vec::new();
        for object in lines.split(|line| line.text == "---") {
            let runs = object.iter().any(|line| line.value("containers").is_some());
            let service = service_of(object);
            match set(object, SETTING) {
                Some(line) => timers.push(self.timer(SETTING, &line, service)?),
                None if runs && service.is_some() => timers.push(default(SETTING, 30, service)),
                None => {}
            }
        }
        Ok(timers)
    }

    fn timer(
        &self,
        setting: &'static str,
        line: &Line<'_>,
        service: Option<Service>,
    ) -> Result<KillTimer, String> {
        let (_, value) = line.text.split_once([':', '=']).unwrap_or_default();
        let value = self.filled(value.trim().trim_matches(['"', '\'']));
        let after = duration(&value).ok_or_else(|| {
            format!(
                "line {}: {setting} is {value:?}, which is no time: fill in what a template would",
                line.number
            )
        })?;
        Ok(KillTimer { setting, line: Some(line.number), service, after })
    }

    /// With `${NAME:-default}` replaced as Compose does.
    fn filled(&self, value: &str) -> String {
        let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
        let Some((inside, behind)) = rest.split_once('}') else { return value.to_owned() };
        let (name, default) = inside.split_once(":-").or(inside.split_once('-')).unwrap_or((inside, ""));
        let set = (self.variable)(name).filter(|value| !value.is_empty());
        format!("{before}{}{}", set.unwrap_or_else(|| default.to_owned()), self.filled(behind))
    }
}

fn default(setting: &'static str, seconds: u64, service: Option<Service>) -> KillTimer {
    KillTimer { setting, line: None, service, after: Some(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests;
