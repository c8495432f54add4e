//! The four servers: how each is started, asked whether it is ready, stopped and wiped. Data is as durable as the
//! design asks: PostgreSQL with fsync, the others may lose everything.

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

const INITDB: &str = "initdb";
/// File beside the data of an etcd that was ready once.
const READY: &str = "ready";

/// A server that can be started again and again on the same port with the same data.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) service: Service,
    binary: PathBuf,
    data: PathBuf,
    owner: Option<Owner>,
    /// Data that need not survive a power cut is written without waiting for the disk where nobody can tell.
    temporary: bool,
    port: Port,
    /// etcd listens for peers too, even alone.
    peer: Option<Port>,
}

impl Store {
    /// Finds the binary, claims ports, makes the data folder.
    pub(crate) fn prepare(service: Service, folder: &Folder) -> Result<Self, Error> {
        let owner = if service == Service::Postgres { Owner::of_postgres()? } else { None };
        Ok(Self {
            service,
            binary: find::server(service)?,
            data: folder.data_of(service.as_str(), owner.as_ref())?,
            owner,
            temporary: folder.is_temporary(),
            // Held as long as this lives, also while the server is down: it comes back to it.
            port: Port::claim()?,
            peer: if service == Service::Etcd { Some(Port::claim()?) } else { None },
        })
    }

    /// The same server and data on ports of its own.
    pub(crate) fn elsewhere(&self) -> Result<Self, Error> {
        Ok(Self {
            service: self.service,
            binary: self.binary.clone(),
            data: self.data.clone(),
            owner: self.owner.clone(),
            temporary: self.temporary,
            port: Port::claim()?,
            peer: if self.peer.is_some() { Some(Port::claim()?) } else { None },
        })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// What services are given to reach it.
    pub(crate) fn url(&self) -> String {
        let address = self.address();
        match self.service {
            Service::Nats => format!("nats://{address}"),
            Service::Etcd => format!("http://{address}"),
            Service::Redis => format!("redis://{address}"),
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
        self.port.is_free() && self.peer.as_ref().is_none_or(Port::is_free)
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
            // With its files in the folder: a restart keeps what a stream holds on disk, a wipe does not.
            Service::Nats => {
                command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(&self.data);
            }
            Service::Etcd => {
                let client = self.url();
                let peer = format!("http://127.0.0.1:{}", self.peer.as_ref().map_or(0, Port::number));
                command.args(["--name", "one", "--data-dir"]).arg(self.data.join("data"));
                command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
                command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
                command.args(["--initial-cluster", &format!("one={peer}"), "--logger", "zap"]);
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

    /// What must be there before a start: PostgreSQL's cluster of databases. Of etcd, what must not be there.
    pub(crate) async fn initialise(&self, record: &ProcessRecord) -> Result<(), Error> {
        let data = self.data.join("data");
        // Killed before it had written that it is a member of its own cluster, etcd never elects a leader again.
        if self.service == Service::Etcd && !self.data.join(READY).exists() {
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

    /// Removes all data. The server must not run.
    pub(crate) fn wipe(&self) -> Result<(), Error> {
        let entries = std::fs::read_dir(&self.data).map_err(Error::file("cannot read", &self.data))?;
        entries.flatten().try_for_each(|entry| remove(&entry.path()))
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
