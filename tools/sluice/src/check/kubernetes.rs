//! What manifests of Kubernetes make of a stop and of a roll: whether the pod is killed before its stop is over, whether
//! one is taken away before its replacement serves, whether clients are still sent to one that has closed its door. Pure.

mod workload;

use std::fmt;
use std::time::Duration;

use sluice_launcher::Service;
use sluice_lifecycle::WATCHDOG_MARGIN;

use workload::{Handler, Kind, PreStop, Workload, workloads};

/// What is wrong, or hardly meant, with which object, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    object: String,
    text: String,
    /// It can be meant.
    pub(super) is_allowed: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.is_allowed { "warning: " } else { "" };
        write!(f, "{warning}{}: {}", self.object, self.text)
    }
}

/// What is wrong with the services in these manifests, several documents of YAML. `total` is how long a stop of a service
/// may take where they do not say it themselves.
///
/// # Errors
/// They are no YAML, or no service is in them: what to do instead.
pub(super) fn findings(text: &str, total: impl Fn(Service) -> Duration) -> Result<Vec<Finding>, String> {
    let workloads = workloads(text)?;
    let mut all = Vec::new();
    for workload in &workloads {
        let total = workload.total().unwrap_or_else(|| total(workload.service));
        let found = [
            kill_timer(workload, total),
            told_timer(workload),
            pre_stop(workload),
            order(workload, &workloads),
            readiness(workload),
            liveness(workload),
            strategy(workload),
            service_links(workload),
        ];
        let found = found.into_iter().flatten();
        all.extend(found.map(|(text, is_allowed)| Finding {
            object: workload.to_string(),
            text,
            is_allowed,
        }));
    }
    Ok(all)
}

/// What is to be said, and whether it can be meant.
type Found = Option<(String, bool)>;

fn wrong(text: String) -> Found {
    Some((text, false))
}

fn warning(text: String) -> Found {
    Some((text, true))
}

/// The kubelet's patience begins with the hook, not with the signal.
fn kill_timer(workload: &Workload, total: Duration) -> Found {
    let (grace, hook) = (workload.grace(), workload.pre_stop.lasts());
    let needed = hook + total + WATCHDOG_MARGIN;
    if grace > needed {
        return None;
    }
    let enough = needed.as_secs() + 1;
    wrong(format!(
        "terminationGracePeriodSeconds is {}, but preStop takes {hook:?}, a stop of {} {total:?}, and its watchdog \
         {WATCHDOG_MARGIN:?} more: set it to {enough} or more, or lower shutdown.total_ms",
        grace.as_secs(),
        workload.service
    ))
}

/// What the service believes of the platform, and warns by.
fn told_timer(workload: &Workload) -> Found {
    let told = workload.setting("shutdown.kill_after_ms")?;
    let left = workload.grace().saturating_sub(workload.pre_stop.lasts());
    (Duration::from_millis(told) > left).then_some(())?;
    let left = left.as_millis();
    wrong(format!(
        "shutdown.kill_after_ms is {told}, but of terminationGracePeriodSeconds only {left} ms are left after preStop: set \
         it to {left}, so that a start warns when a stop takes longer"
    ))
}

fn pre_stop(workload: &Workload) -> Found {
    match &workload.pre_stop {
        PreStop::NotThere(program) => wrong(format!(
            "preStop runs {program:?}, which our images do not have: use `preStop: {{ sleep: {{ seconds: 5 }} }}`"
        )),
        // The others are dialled by their own addresses, and tell whoever is connected.
        PreStop::None if workload.service == Service::Gateway => {
            let accepts = workload.setting("drain.accept_grace_ms").unwrap_or(0);
            let text = "there is no preStop: clients are still sent to it for some seconds after it has closed its door; add \
                        `preStop: { sleep: { seconds: 5 } }`";
            if accepts == 0 { wrong(text.to_owned()) } else { None }
        }
        PreStop::None | PreStop::Lasts(_) | PreStop::Unknown => None,
    }
}

/// When all are told to stop at once, the last logic and the last task stay for gateways that drain: which those do
/// after their own hook.
fn order(workload: &Workload, all: &[Workload]) -> Found {
    let gateways = all.iter().filter(|other| other.service == Service::Gateway);
    let longest = gateways.map(|gateway| gateway.pre_stop.lasts()).max().unwrap_or_default();
    let own = workload.pre_stop.lasts();
    (workload.service != Service::Gateway && own < longest).then_some(())?;
    warning(format!(
        "its preStop takes {own:?} and that of gateways {longest:?}: when everything is stopped at once it ends before they \
         drain, and their clients send again what was under way; give it as long"
    ))
}

fn readiness(workload: &Workload) -> Found {
    match &workload.readiness {
        Handler::Http(path) if path != "/readyz" => wrong(format!(
            "its readinessProbe asks for {path}, which does not say whether it wants work: ask for /readyz of the admin port"
        )),
        Handler::None => wrong(
            "there is no readinessProbe: a roll goes on before the new one serves; ask for /readyz of the admin port"
                .to_owned(),
        ),
        Handler::Http(_) | Handler::Other => None,
    }
}

fn liveness(workload: &Workload) -> Found {
    let Handler::Http(path) = &workload.liveness else { return None };
    (path == "/readyz").then_some(())?;
    wrong(
        "its livenessProbe asks for /readyz, which is 503 while a server is away, and in a stop: it would be killed for \
         that; ask for /livez"
            .to_owned(),
    )
}

fn strategy(workload: &Workload) -> Found {
    match workload.kind {
        Kind::Recreate => wrong(
            "strategy Recreate takes all away before one is new: use RollingUpdate with maxUnavailable: 0 and maxSurge: 1"
                .to_owned(),
        ),
        Kind::Deployment { unavailable } if unavailable > 0 => wrong(format!(
            "a roll takes {unavailable} of {} away before their replacements serve: set maxUnavailable: 0 and maxSurge: 1",
            workload.replicas
        )),
        Kind::StatefulSet => warning(
            "a StatefulSet takes one away before the next serves, and no service needs a name that stays: a Deployment can \
             have maxUnavailable: 0 and maxSurge: 1"
                .to_owned(),
        ),
        Kind::Deployment { .. } => None,
    }
}

fn service_links(workload: &Workload) -> Found {
    (!workload.no_service_links).then_some(())?;
    warning(
        "enableServiceLinks is not false: a Service whose name begins with sluice sets variables SLUICE_…, which every \
         start takes for settings and warns of"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;
