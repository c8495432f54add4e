//! Reads Deployments and StatefulSets of services out of manifests, with the defaults of Kubernetes and with the settings
//! that a pod gets by its environment and its ConfigMap. Judges nothing.

use std::fmt;
use std::time::Duration;

use sluice_launcher::Service;
use toml::{Table, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Kubernetes' own, where nothing is set.
const GRACE_DEFAULT_S: u64 = 30;
const UNAVAILABLE_DEFAULT: &str = "25%";

/// How pods are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// So many may be missing in a roll.
    Deployment {
        unavailable: u64,
    },
    /// A Deployment that takes all away first.
    Recreate,
    StatefulSet,
}

/// What happens before the signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PreStop {
    None,
    Lasts(Duration),
    /// A program that our images lack: the hook fails, and the signal comes at once.
    NotThere(String),
    Unknown,
}

impl PreStop {
    /// As far as is known.
    pub(super) fn lasts(&self) -> Duration {
        match self {
            Self::Lasts(duration) => *duration,
            Self::None | Self::NotThere(_) | Self::Unknown => Duration::ZERO,
        }
    }
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handler {
    None,
    /// It asks for this path.
    Http(String),
    Other,
}

/// The pods of one service.
#[derive(Debug)]
pub(super) struct Workload {
    name: String,
    pub(super) service: Service,
    pub(super) kind: Kind,
    pub(super) replicas: u64,
    grace: Option<u64>,
    pub(super) pre_stop: PreStop,
    pub(super) readiness: Handler,
    pub(super) liveness: Handler,
    pub(super) no_service_links: bool,
    environment: Vec<(String, String)>,
    /// Its file, where a ConfigMap among the manifests has it.
    file: Table,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::StatefulSet { "StatefulSet" } else { "Deployment" };
        write!(f, "{kind} {}", self.name)
    }
}

impl Workload {
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.unwrap_or(GRACE_DEFAULT_S))
    }

    /// How long a stop may take, where the manifests say so.
    pub(super) fn total(&self) -> Option<Duration> {
        self.setting("shutdown.total_ms").map(Duration::from_millis)
    }

    /// A number by its key; the environment wins over the file, as in the services.
    pub(super) fn setting(&self, key: &str) -> Option<u64> {
        let variable = format!("SLUICE_{}", key.to_uppercase().replace('.', "__"));
        let mut environment = self.environment.iter();
        if let Some((_, value)) = environment.rfind(|(name, _)| *name == variable) {
            return value.parse().ok();
        }
        let mut steps = key.split('.');
        let first = self.file.get(steps.next()?);
        let found = steps.fold(first, |at, step| at.and_then(|at| at.get(step)));
        found.and_then(Value::as_integer).and_then(|number| number.try_into().ok())
    }
}

/// The services of these manifests.
///
/// # Errors
/// They are no YAML, or there is no service in them.
pub(super) fn workloads(text: &str) -> Result<Vec<Workload>, String> {
    const RENDERED: &str = "what a template would fill in has to be filled in, as by `helm template`";
    let documents = YamlLoader::load_from_str(text);
    let documents = documents.map_err(|error| format!("this is no YAML ({error}): {RENDERED}"))?;
    // `kubectl get --output yaml` wraps what it found.
    let objects: Vec<&Yaml> = documents
        .iter()
        .flat_map(|document| match document["items"].as_vec() {
            Some(items) => items.iter().collect(),
            None => vec![document],
        })
        .collect();
    let found: Result<Vec<_>, _> = objects.iter().filter_map(|object| workload(object, &objects)).collect();
    let found = found?;
    if found.is_empty() {
        return Err(format!(
            "no Deployment and no StatefulSet with an image or a command sluice-gateway, sluice-logic or sluice-task is in \
             it: {RENDERED}"
        ));
    }
    Ok(found)
}

fn workload(object: &Yaml, all: &[&Yaml]) -> Option<Result<Workload, String>> {
    let is_deployment = match object["kind"].as_str()? {
        "Deployment" => true,
        "StatefulSet" => false,
        _ => return None,
    };
    let pod = &object["spec"]["template"]["spec"];
    let (service, container) = list(&pod["containers"]).find_map(|one| Some((service_of(one)?, one)))?;
    let name = object["metadata"]["name"].as_str().unwrap_or(service.as_str()).to_owned();
    let replicas = whole(&object["spec"]["replicas"]).unwrap_or(1);
    let file = match file_of(service, pod, all) {
        Ok(file) => file,
        Err(error) => return Some(Err(error)),
    };
    let environment =
        list(&container["env"]).filter_map(|one| Some((text(&one["name"])?, text(&one["value"])?)));
    Some(Ok(Workload {
        name,
        service,
        kind: if is_deployment {
            deployment(&object["spec"]["strategy"], replicas)
        } else {
            Kind::StatefulSet
        },
        replicas,
        grace: whole(&pod["terminationGracePeriodSeconds"]),
        pre_stop: pre_stop(&container["lifecycle"]["preStop"]),
        readiness: handler(&container["readinessProbe"]),
        liveness: handler(&container["livenessProbe"]),
        no_service_links: pod["enableServiceLinks"].as_bool() == Some(false),
        environment: environment.collect(),
        file,
    }))
}

/// Which service a container runs: by its image, or by what it is told to run.
fn service_of(container: &Yaml) -> Option<Service> {
    let words = list(&container["command"]).chain(list(&container["args"])).filter_map(Yaml::as_str);
    let words: Vec<&str> = container["image"].as_str().into_iter().chain(words).collect();
    let runs = |service: &Service| {
        let program = format!("sluice-{service}");
        let is_it = |word: &&str| {
            let last = word.rsplit('/').next().unwrap_or_default();
            last.split([':', '@']).next() == Some(program.as_str())
        };
        words.iter().any(is_it)
    };
    Service::SERVICES.into_iter().find(runs)
}

/// The file of a service in the ConfigMaps that its pod mounts.
fn file_of(service: Service, pod: &Yaml, all: &[&Yaml]) -> Result<Table, String> {
    let key = format!("{service}.toml");
    let mounted = list(&pod["volumes"]).filter_map(|volume| volume["configMap"]["name"].as_str());
    let found = mounted.filter_map(|name| {
        let is_it = |object: &&&Yaml| {
            object["kind"].as_str() == Some("ConfigMap") && object["metadata"]["name"].as_str() == Some(name)
        };
        Some((name, all.iter().find(is_it)?["data"][key.as_str()].as_str()?))
    });
    match found.last() {
        Some((name, text)) => {
            text.parse::<Table>().map_err(|error| format!("ConfigMap {name}, {key}: {error}"))
        }
        None => Ok(Table::new()),
    }
}

/// A percentage of those that may be missing is rounded down.
fn deployment(strategy: &Yaml, replicas: u64) -> Kind {
    if strategy["type"].as_str() == Some("Recreate") {
        return Kind::Recreate;
    }
    let set = &strategy["rollingUpdate"]["maxUnavailable"];
    let share = set.as_str().unwrap_or(UNAVAILABLE_DEFAULT).trim_end_matches('%').parse::<u64>();
    let unavailable = whole(set).unwrap_or_else(|| share.unwrap_or(0).saturating_mul(replicas) / 100);
    Kind::Deployment { unavailable }
}

fn pre_stop(hook: &Yaml) -> PreStop {
    if let Some(seconds) = whole(&hook["sleep"]["seconds"]) {
        return PreStop::Lasts(Duration::from_secs(seconds));
    }
    let words: Vec<&str> = list(&hook["exec"]["command"]).filter_map(Yaml::as_str).collect();
    let Some(program) = words.first() else {
        return if hook.as_hash().is_some() { PreStop::Unknown } else { PreStop::None };
    };
    // There is no shell in the images, and no `sleep`.
    if *program != "sluice" && !program.ends_with("/sluice") {
        return PreStop::NotThere((*program).to_owned());
    }
    let wait =
        words.iter().skip_while(|word| **word != "--wait-s").nth(1).and_then(|seconds| seconds.parse().ok());
    wait.map_or(PreStop::Unknown, |seconds| PreStop::Lasts(Duration::from_secs(seconds)))
}

fn handler(probe: &Yaml) -> Handler {
    if probe.as_hash().is_none() {
        return Handler::None;
    }
    match probe["httpGet"].as_hash() {
        Some(_) => Handler::Http(probe["httpGet"]["path"].as_str().unwrap_or("/").to_owned()),
        None => Handler::Other,
    }
}

fn list(value: &Yaml) -> impl Iterator<Item = &Yaml> {
    value.as_vec().into_iter().flatten()
}

fn whole(value: &Yaml) -> Option<u64> {
    value.as_i64().and_then(|number| number.try_into().ok())
}

fn text(value: &Yaml) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}
