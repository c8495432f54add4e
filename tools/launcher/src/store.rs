//! The servers, alone and as members of a group: how each is started, asked whether it is ready, stopped and wiped. Data is as durable as the
//! design asks: PostgreSQL with fsync, the others may lose everything.

mod group;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::defaults::{POSTGRES_CONNECTIONS, PROBE};
use crate::error::Error;
use crate::find;
use crate::folder::{Folder, Owner};
use crate::held::{self, Hold};
use crate::port::Port;
use crate::probe;
use crate::record::ProcessRecord;
use crate::service::Service;

use self::group::{Group, KEPT, conf, ports};
pub(crate) use self::group::{PRIMARY, prepare};

const INITDB: &str = "initdb";
/// File beside the data of an etcd that was ready once.
const READY: &str = "ready";

/// A server that can be started again and again on the same port with the same data.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) service: Service,
    /// Which one of its group.
    pub(crate) index: usize,
    group: Group,
    binary: PathBuf,
    data: PathBuf,
    owner: Option<Owner>,
    /// Data that need not survive a power cut is written without waiting for the disk where nobody can tell.
    temporary: bool,
    port: Port,
    /// Where members listen for each other; etcd does so even alone.
    peer: Port,
}

impl Store {
    /// Finds the binary, claims ports, makes the data folder.
    fn prepare(service: Service, index: usize, folder: &Folder, grouped: bool) -> Result<Self, Error> {
        let owner = if service == Service::Postgres { Owner::of_postgres()? } else { None };
        let binary = find::server(service)?;
        let data = folder.data_of(&service.name(index), owner.as_ref())?;
        // Held as long as this lives, also while the server is down: it comes back to it.
        let (port, peer) = ports(&data, grouped && service == Service::Etcd)?;
        let (group, temporary) = (Group::default(), folder.is_temporary());
        Ok(Self { service, index, group, binary, data, owner, temporary, port, peer })
    }

    /// The same server and data on ports of its own.
    pub(crate) fn elsewhere(&self) -> Result<Self, Error> {
        Ok(Self {
            service: self.service,
            index: self.index,
            group: self.group.clone(),
            binary: self.binary.clone(),
            data: self.data.clone(),
            owner: self.owner.clone(),
            temporary: self.temporary,
            port: Port::claim()?,
            peer: Port::claim()?,
        })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    pub(crate) fn client_port(&self) -> u16 {
        self.port.number()
    }

    fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.peer.number())
    }

    /// What services are given to reach it.
    pub(crate) fn url(&self) -> String {
        let address = self.address();
        match self.service {
            Service::Nats => format!("nats://{address}"),
            Service::Etcd => format!("http://{address}"),
            Service::Redis | Service::Sentinel => format!("redis://{address}"),
            Service::Postgres => format!("postgres://postgres@{address}/postgres"),
            Service::Gateway | Service::Logic | Service::Task => String::new(),
        }
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn port_is_free(&self) -> bool {
        self.port.is_free() && self.peer.is_free()
    }

    /// SIGTERM asks PostgreSQL to wait for its clients, for ever; SIGINT ends their sessions.
    pub(crate) fn stop_signal(&self) -> Signal {
        if self.service == Service::Postgres { Signal::SIGINT } else { Signal::SIGTERM }
    }

    /// The command with a clean environment, as the user that owns the data.
    fn of(&self, mut command: Command) -> Command {
        // PostgreSQL and its tools read dozens of variables: what the caller has set must not change a test.
        command.env_clear().env("LC_ALL", "C").current_dir(&self.data);
        for name in ["PATH", "TZ", "TMPDIR", "ETCD_UNSUPPORTED_ARCH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("HOME", &self.data);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.of(held::command(&self.binary));
        let port = self.port.number().to_string();
        match self.service {
            Service::Nats => self.nats(&mut command, &port),
            Service::Etcd => self.etcd(&mut command),
            Service::Sentinel => {
                command.arg(conf(self)).arg("--sentinel");
            }
            // Its role is in the file, where a failover changes it.
            Service::Redis if !self.group.is_alone() => {
                command.arg(conf(self));
            }
            Service::Redis => {
                // Nothing on disk: Redis may forget everything, and a drill wants to see that it may.
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
                command.args(["--daemonize", "no", "--dir"]).arg(&self.data);
            }
            Service::Postgres => {
                command.arg("-D").arg(self.data.join("data")).args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-k",
                    "",
                ]);
                command.args([
                    "-c",
                    &format!("max_connections={POSTGRES_CONNECTIONS}"),
                    "-c",
                    "timezone=UTC",
                ]);
            }
            Service::Gateway | Service::Logic | Service::Task => {}
        }
        command
    }

    /// With its files in the folder: a restart keeps what a stream holds on disk, a wipe does not.
    fn nats(&self, command: &mut Command, port: &str) {
        command.args(["-a", "127.0.0.1", "-p", port, "-js", "-sd"]).arg(&self.data);
        if !self.group.is_alone() {
            let peer = format!("nats://{}", self.peer_address());
            command.args(["--name", &self.service.name(self.index), "--cluster_name", PRIMARY]);
            command.args(["--cluster", &peer, "--routes", &self.group.routes()]);
        }
    }

    fn etcd(&self, command: &mut Command) {
        let (client, peer) = (self.url(), format!("http://{}", self.peer_address()));
        let (name, members) = if self.group.is_alone() {
            ("one".to_owned(), format!("one={peer}"))
        } else {
            (self.service.name(self.index), self.group.initial_cluster())
        };
        command.args(["--name", &name, "--data-dir"]).arg(self.data.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members, "--logger", "zap"]);
    }

    /// What must be there before a start: PostgreSQL's cluster of databases. Of etcd, what must not be there.
    pub(crate) async fn initialise(&self, record: &ProcessRecord) -> Result<(), Error> {
        let data = self.data.join("data");
        // Killed before it had written that it is a member of its own cluster, etcd never elects a leader again.
        // A member of a group the others go on with: it must not come back without what it has promised them.
        if self.service == Service::Etcd && self.group.is_alone() && !self.data.join(READY).exists() {
            remove(&data)?;
        }
        // the version file is written last but for the first database: an interrupted initdb is begun again
        if self.service != Service::Postgres
            || data.join("base/1/PG_VERSION").exists() && data.join("global/pg_control").exists()
        {
            return Ok(());
        }
        remove(&data)?;
        let mut initdb = self.of(held::command(&self.binary.with_file_name("initdb")));
        initdb.arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale"]);
        // Nobody reads it after a power cut, and syncing takes most of the time of `initdb`.
        if self.temporary {
            initdb.arg("--no-sync");
        }
        let failed = |source| Error::Spawn { name: INITDB.to_owned(), source };
        let hold = Hold::on(&mut initdb).map_err(failed)?;
        let initdb = initdb.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let initdb = initdb.spawn().map_err(failed)?;
        // One that outlives its launcher would write on where the next start begins anew.
        record.add(initdb.id().unwrap_or_default(), Signal::SIGTERM, INITDB)?;
        hold.release();
        let output = initdb.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Err(Error::Died { name: INITDB.to_owned(), status: output.status, log })
    }

    /// Notes that its data can be started from again: it has answered once.
    pub(crate) fn note_ready(&self) -> Result<(), Error> {
        if self.service != Service::Etcd {
            return Ok(());
        }
        let file = self.data.join(READY);
        std::fs::write(&file, "").map_err(Error::file("cannot write", &file))
    }

    /// Whether it answers as a working server; else what it said.
    pub(crate) async fn is_ready(&self) -> Result<(), String> {
        let said = match self.service {
            Service::Nats => {
                probe::line(&self.address(), "", PROBE).await.map(|line| line.starts_with("INFO "))
            }
            Service::Etcd => probe::get(&format!("{}/health", self.url()), PROBE)
                .await
                .map(|answer| answer.status == 200 && answer.body.contains("true")),
            Service::Redis => {
                probe::line(&self.address(), "PING\r\n", PROBE).await.map(|line| line == "+PONG")
            }
            // Before it knows all of them, it could not bring about a failover.
            Service::Sentinel => probe::bulk(&self.address(), "INFO sentinel\r\n", PROBE)
                .await
                .map(|said| said.contains("slaves=2,sentinels=3")),
            Service::Postgres => return self.postgres_is_ready().await,
            Service::Gateway | Service::Logic | Service::Task => return Ok(()),
        };
        match said {
            Ok(true) => Ok(()),
            Ok(false) => Err("it answers, but not as it should".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn postgres_is_ready(&self) -> Result<(), String> {
        let mut ask = self.of(Command::new(self.binary.with_file_name("pg_isready")));
        ask.args([
            "-h",
            "127.0.0.1",
            "-d",
            "postgres",
            "-U",
            "postgres",
            "-p",
            &self.port.number().to_string(),
        ]);
        let ask = ask.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PROBE, ask).await.map_err(|_| "pg_isready takes too long")?;
        let output = output.map_err(|error| format!("pg_isready: {error}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
    }

    /// Whether it does what it is in its group for: a replica follows.
    pub(crate) async fn has_joined(&self) -> Result<(), String> {
        if self.service != Service::Redis || self.group.is_alone() {
            return Ok(());
        }
        let said = probe::bulk(&self.address(), "INFO replication\r\n", PROBE).await;
        let said = said.map_err(|error| error.to_string())?;
        let joined = said.contains("role:master") || said.contains("master_link_status:up");
        joined.then_some(()).ok_or_else(|| "it does not follow its primary yet".to_owned())
    }

    /// The port of the primary, as this sentinel has it.
    pub(crate) async fn primary(&self) -> Option<u16> {
        let said = probe::bulk(&self.address(), "INFO sentinel\r\n", PROBE).await.ok()?;
        let (_, rest) = said.split_once("address=127.0.0.1:")?;
        rest.split(',').next()?.parse().ok()
    }

    /// Removes all data. The server must not run.
    pub(crate) fn wipe(&self) -> Result<(), Error> {
        let entries = std::fs::read_dir(&self.data).map_err(Error::file("cannot read", &self.data))?;
        let data = entries.flatten().filter(|entry| !KEPT.iter().any(|kept| entry.file_name() == *kept));
        data.map(|entry| entry.path()).try_for_each(|path| remove(&path))
    }

    /// Removes all keys of a running Redis.
    pub(crate) async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        let said = probe::line(&self.address(), "FLUSHALL\r\n", timeout).await;
        match said {
            Ok(line) if line == "+OK" => Ok(()),
            Ok(line) => Err(Error::System(format!("FLUSHALL: {line}"))),
            Err(error) => Err(Error::System(format!("FLUSHALL: {error}"))),
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::file("cannot remove", path)),
    }
}
