//! The engine and a project on it, by their programs. Every command has a bound.

use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Output, Stdio};
use std::time::Duration;

use futures::future::join_all;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// Longest command; a start waits for health checks.
const BOUND: Duration = Duration::from_secs(240);
/// Between two looks at something that should happen soon.
const LOOK: Duration = Duration::from_millis(250);

/// Names of the services, and of what they stand on.
pub const SERVICES: [&str; 3] = ["gateway", "logic", "task"];
pub const STORES: [&str; 4] = ["nats", "redis", "etcd", "postgres"];
/// Where the test's ports.yaml publishes the store.
pub const STORE: &str = "postgres://sluice:sluice@127.0.0.1:15432/sluice";
/// The default of the compose files.
pub const SECRET: &str = "sluice-default-secret-change-me";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub async fn output(program: &str, arguments: &[&str]) -> Output {
    output_with(program, arguments, &[]).await
}

async fn output_with(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.envs(variables.iter().copied());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(BOUND, command.output()).await;
    output.unwrap_or_else(|_| panic!("{program} {arguments:?} took too long")).unwrap()
}

/// What it printed, errors included where `docker logs` has them.
pub async fn docker(arguments: &[&str]) -> String {
    said("docker", arguments, output("docker", arguments).await)
}

fn said(program: &str, arguments: &[&str], output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    if arguments.first() == Some(&"logs") {
        return text(&output.stdout) + &text(&output.stderr);
    }
    text(&output.stdout).trim().to_owned()
}

/// A compose file as it is understood with these variables.
pub async fn composed(file: &str, variables: &[(&str, &str)]) -> String {
    let file = root().join("deploy").join(file).display().to_string();
    let (program, first) = if plugin() { ("docker", Some("compose")) } else { ("docker-compose", None) };
    let arguments: Vec<&str> = first.into_iter().chain(["--file", &file, "config"]).collect();
    said(program, &arguments, output_with(program, &arguments, variables).await)
}

/// A compose project from one of the files; taken down with its volumes when it is dropped.
pub struct Project {
    name: &'static str,
    pub file: PathBuf,
    /// Files over it.
    over: Vec<PathBuf>,
    variables: Vec<(&'static str, &'static str)>,
}

impl Project {
    /// Brings everything up from nothing; `up` returns when gateways may be asked.
    pub async fn up(name: &'static str, file: &str) -> Self {
        Self::up_over(name, file, &[], &[]).await
    }

    /// One whose store is in it, from nothing; nothing runs yet.
    pub fn alone(name: &'static str, file: &str) -> Self {
        Self::down(Self {
            name,
            file: root().join("deploy").join(file),
            over: Vec::new(),
            variables: Vec::new(),
        })
    }

    /// Without what a test that was killed has left.
    fn down(self) -> Self {
        self.blocking(&["down", "--volumes", "--timeout", "1"]);
        self
    }

    /// The same with files over the first one, and with these variables.
    pub async fn up_over(
        name: &'static str,
        file: &str,
        over: &[&str],
        variables: &[(&'static str, &'static str)],
    ) -> Self {
        let at = |file: &str| root().join("deploy").join(file);
        let mut over: Vec<PathBuf> = over.iter().map(|file| at(file)).collect();
        over.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers/ports.yaml"));
        let project = Self::down(Self { name, file: at(file), over, variables: variables.to_vec() });
        project.compose(&["up", "--detach", "--no-build"]).await;
        project
    }

    fn arguments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let files = [&self.file].into_iter().chain(&self.over);
        let files = files.flat_map(|file| ["--file", file.to_str().unwrap()]);
        ["--project-name", self.name].into_iter().chain(files).chain(rest.iter().copied()).collect()
    }

    pub async fn compose(&self, rest: &[&str]) -> String {
        said("compose", rest, self.try_compose(rest).await)
    }

    pub async fn try_compose(&self, rest: &[&str]) -> Output {
        let (program, first) = if plugin() { ("docker", Some("compose")) } else { ("docker-compose", None) };
        let arguments: Vec<&str> = first.into_iter().chain(self.arguments(rest)).collect();
        output_with(program, &arguments, &self.variables).await
    }

    fn blocking(&self, rest: &[&str]) {
        let mut command = if plugin() { Blocking::new("docker") } else { Blocking::new("docker-compose") };
        if plugin() {
            command.arg("compose");
        }
        let quiet = ["down", "kill"].contains(&rest[0]);
        let told = || if quiet { Stdio::null() } else { std::io::stderr().into() };
        command
            .envs(self.variables.iter().copied())
            .args(self.arguments(rest))
            .stdout(told())
            .stderr(told())
            .status()
            .ok();
    }

    /// Of the one container of a service. The engine is asked: compose is slow where it is a Python program.
    pub async fn id(&self, service: &str) -> String {
        let label = |name: &str, value: &str| format!("--filter=label=com.docker.compose.{name}={value}");
        let (project, of) = (label("project", self.name), label("service", service));
        let id = docker(&["ps", "--all", "--quiet", "--no-trunc", &project, &of]).await;
        assert!(!id.is_empty() && !id.contains('\n'), "{service}: {id:?}");
        id
    }

    /// Waits until the health check of each says that it is ready.
    pub async fn healthy(&self, services: &[&str]) {
        let began = Instant::now();
        let ids = join_all(services.iter().map(|service| self.id(service))).await;
        let ask = ["inspect", "--format", "{{.State.Health.Status}}"].into_iter();
        let ask: Vec<&str> = ask.chain(ids.iter().map(String::as_str)).collect();
        loop {
            let health = docker(&ask).await;
            if health.lines().all(|health| health == "healthy") {
                return;
            }
            assert!(began.elapsed() < BOUND, "{services:?}: {health}");
            sleep(LOOK).await;
        }
    }

    /// Its exit code, once it has ended.
    pub async fn exit_code(&self, service: &str) -> i32 {
        docker(&["wait", &self.id(service).await]).await.parse().unwrap()
    }

    pub async fn log(&self, service: &str) -> String {
        docker(&["logs", "--timestamps", &self.id(service).await]).await
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.blocking(&["ps"]);
            self.blocking(&["logs", "--tail", "50"]);
        }
        // nobody is interested in how it ends
        self.blocking(&["kill"]);
        self.blocking(&["down", "--volumes", "--timeout", "1"]);
    }
}

fn plugin() -> bool {
    let mut command = Blocking::new("docker");
    let version = command.args(["compose", "version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
