//! The servers, alone and as members of a group: how each is started, stopped and wiped. Data is as durable as the design
//! asks: PostgreSQL with fsync, the others may lose everything.

mod asking;
mod group;
mod patroni;
mod postmaster;
mod secured;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::access::Access;
use crate::defaults::{PATRONI_READY, PATRONI_STOP, POSTGRES_CONNECTIONS, STORE_READY, STORE_STOP};
use crate::doors::Doors;
use crate::error::Error;
use crate::find;
use crate::folder::{Folder, Owner};
use crate::held::{self, Hold};
use crate::port::Port;
use crate::record::ProcessRecord;
use crate::service::Service;

use self::group::{Group, KEPT, conf, has_conf, ports};
pub(crate) use self::group::{Stores, prepare};
use self::secured::Secured;

/// What a group is called: by the sentinels their primary, by NATS its cluster.
pub(crate) const PRIMARY: &str = "sluice";
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
    /// `None` for one that lets everybody in.
    secured: Option<Secured>,
    binary: PathBuf,
    /// What runs it, and decides which member of its group is the primary.
    patroni: Option<PathBuf>,
    data: PathBuf,
    owner: Option<Owner>,
    /// Data that need not survive a power cut is written without waiting for the disk where nobody can tell.
    temporary: bool,
    port: Port,
    /// Where members listen for each other; etcd does so even alone.
    peer: Port,
    /// The ports of its doors, for clients and members: others are told of these two instead.
    doors: Option<(u16, u16)>,
}

impl Store {
    /// Finds the binary, claims ports, makes the data folder.
    fn prepare(
        service: Service,
        index: usize,
        folder: &Folder,
        grouped: bool,
        access: Option<&Arc<Access>>,
        doors: Option<&Arc<dyn Doors>>,
    ) -> Result<Self, Error> {
        let owner = if service == Service::Postgres { Owner::of_postgres()? } else { None };
        let binary = find::server(service)?;
        let patroni = patroni::program(service, grouped)?;
        let name = service.name(index);
        let data = folder.data_of(&name, owner.as_ref())?;
        let secured = access.map(|access| Secured::prepare(access, service, &name, &data, owner.as_ref()));
        let secured = secured.transpose()?;
        // Held as long as this lives, also while the server is down: it comes back to it.
        let (port, peer) = ports(&data, grouped && service == Service::Etcd)?;
        let doors = doors.filter(|_| grouped && service != Service::Sentinel);
        let open = |doors: &Arc<dyn Doors>, port: &Port| {
            let opened = doors.open(service, index, port.number());
            opened.map_err(|error| Error::NoPort(format!("no door before {name}: {error}")))
        };
        let doors =
            doors.map(|doors| Ok::<_, Error>((open(doors, &port)?, open(doors, &peer)?))).transpose()?;
        let (group, temporary) = (Group::default(), folder.is_temporary());
        Ok(Self {
            service,
            index,
            group,
            secured,
            binary,
            patroni,
            data,
            owner,
            temporary,
            port,
            peer,
            doors,
        })
    }

    /// The same server and data on ports of its own.
    pub(crate) fn elsewhere(&self) -> Result<Self, Error> {
        Ok(Self {
            service: self.service,
            index: self.index,
            group: self.group.clone(),
            secured: self.secured.clone(),
            binary: self.binary.clone(),
            patroni: self.patroni.clone(),
            data: self.data.clone(),
            owner: self.owner.clone(),
            temporary: self.temporary,
            port: Port::claim()?,
            peer: Port::claim()?,
            doors: None,
        })
    }

    /// Where clients are told that it is.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port())
    }

    pub(crate) fn client_port(&self) -> u16 {
        self.doors.map_or(self.port.number(), |(client, _)| client)
    }

    /// Where members are told that it is.
    fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.peer_port())
    }

    fn peer_port(&self) -> u16 {
        self.doors.map_or(self.peer.number(), |(_, peer)| peer)
    }

    /// Where it listens for clients, and for members.
    fn listens(&self) -> [String; 2] {
        [&self.port, &self.peer].map(|port| format!("127.0.0.1:{}", port.number()))
    }

    /// Whether it is a node of a Redis Cluster.
    pub(crate) fn is_node(&self) -> bool {
        self.group.is_redis_cluster()
    }

    pub(crate) fn is_secured(&self) -> bool {
        self.secured.is_some()
    }

    fn name(&self) -> String {
        self.service.name(self.index)
    }

    /// What the launcher reaches it by. Holds no password.
    pub(crate) fn url(&self) -> String {
        self.url_for(None)
    }

    /// What this service is given to reach it, or who is none; passwords are apart from it.
    pub(crate) fn url_for(&self, service: Option<Service>) -> String {
        let address = self.address();
        let is_secured = self.is_secured();
        match self.service {
            Service::Nats if is_secured => format!("nats://sluice@{address}"),
            Service::Nats => format!("nats://{address}"),
            Service::Etcd => format!("{}://{address}", self.web()),
            Service::Redis | Service::Sentinel if is_secured => format!("rediss://{address}"),
            Service::Redis | Service::Sentinel => format!("redis://{address}"),
            Service::Postgres | Service::Haproxy => {
                let files = self.secured.as_ref().map(|it| it.access.credentials(self.service, service).tls);
                let options = files.as_ref().map(Secured::postgres_options).unwrap_or_default();
                format!("postgres://postgres@{address}/postgres{options}")
            }
            Service::Gateway | Service::Logic | Service::Task => String::new(),
        }
    }

    /// The same with the password in it, for programs that know no file for it.
    pub(crate) fn url_with_password(&self) -> String {
        let url = self.url();
        let Some(secured) = &self.secured else { return url };
        let password = secured.access.password(self.service);
        match url.split_once('@') {
            Some((user, rest)) => format!("{user}:{password}@{rest}"),
            None => url.replacen("://", &format!("://:{password}@"), 1),
        }
    }

    /// How etcd is spoken to.
    fn web(&self) -> &'static str {
        if self.is_secured() { "https" } else { "http" }
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
        if self.service == Service::Postgres && !self.has_patroni() {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        }
    }

    /// How long a start may take.
    pub(crate) fn ready_limit(&self) -> Duration {
        if self.has_patroni() { PATRONI_READY } else { STORE_READY }
    }

    /// How long a stop may take.
    pub(crate) fn stop_limit(&self) -> Duration {
        if self.has_patroni() { PATRONI_STOP } else { STORE_STOP }
    }

    /// What ends it at once: PostgreSQL is told to drop everything, so that its own children end with it.
    pub(crate) fn kill_signal(&self) -> Signal {
        if self.service == Service::Postgres && !self.has_patroni() {
            Signal::SIGQUIT
        } else {
            Signal::SIGKILL
        }
    }

    /// The PostgreSQL that its Patroni runs.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        if self.has_patroni() { postmaster::of(&self.data.join("data")) } else { None }
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
        let mut command = self.of(held::command(self.patroni.as_ref().unwrap_or(&self.binary)));
        let port = self.port.number().to_string();
        match self.service {
            Service::Nats => self.nats(&mut command, &port),
            Service::Etcd => self.etcd(&mut command),
            Service::Sentinel => {
                command.arg(conf(self)).arg("--sentinel");
            }
            // Its role is in the file, where a failover changes it; a password too, which no list of processes shows.
            Service::Redis if has_conf(self) => {
                command.arg(conf(self));
            }
            Service::Redis => {
                // Nothing on disk: Redis may forget everything, and a drill wants to see that it may.
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
                command.args(["--daemonize", "no", "--dir"]).arg(&self.data);
            }
            Service::Haproxy => {
                command.arg("-db").arg("-f").arg(self.data.join(patroni::HAPROXY_CONF));
            }
            // It starts PostgreSQL itself, and says how.
            Service::Postgres if self.has_patroni() => {
                command.arg(self.data.join(patroni::PATRONI_CONF));
            }
            Service::Postgres => {
                let connections = format!("max_connections={POSTGRES_CONNECTIONS}");
                command.arg("-D").arg(self.data.join("data"));
                command.args(["-h", "127.0.0.1", "-p", &port, "-k", ""]);
                command.args(["-c", &connections, "-c", "timezone=UTC"]);
            }
            Service::Gateway | Service::Logic | Service::Task => {}
        }
        // Patroni is told in its file, and tells PostgreSQL.
        if let Some(secured) = self.secured.as_ref().filter(|_| !self.has_patroni()) {
            secured.add_to(self.service, &mut command);
        }
        command
    }

    /// With its files in the folder: a restart keeps what a stream holds on disk, a wipe does not.
    fn nats(&self, command: &mut Command, port: &str) {
        command.args(["-a", "127.0.0.1", "-p", port, "-js", "-sd"]).arg(&self.data);
        if self.group.is_alone() {
            return;
        }
        command.args(["--name", &self.name(), "--cluster_name", PRIMARY]);
        // Else in its file, with how members know each other.
        if !self.is_secured() {
            let peer = format!("nats://{}", self.listens()[1]);
            command.args(["--cluster", &peer, "--routes", &self.group.routes("").join(",")]);
        }
        if self.doors.is_some() {
            command.args([
                "--client_advertise",
                &self.address(),
                "--cluster_advertise",
                &self.peer_address(),
            ]);
        }
    }

    fn etcd(&self, command: &mut Command) {
        let (client, peer) = (self.url(), format!("{}://{}", self.web(), self.peer_address()));
        let [own_client, own_peer] = self.listens().map(|listens| format!("{}://{listens}", self.web()));
        let (name, members) = if self.group.is_alone() {
            ("one".to_owned(), format!("one={peer}"))
        } else {
            (self.name(), self.group.initial_cluster(self.web()))
        };
        command.args(["--name", &name, "--data-dir"]).arg(self.data.join("data"));
        command.args(["--listen-client-urls", &own_client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &own_peer, "--initial-advertise-peer-urls", &peer]);
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
            || self.has_patroni()
            || data.join("base/1/PG_VERSION").exists() && data.join("global/pg_control").exists()
        {
            return Ok(());
        }
        remove(&data)?;
        let mut initdb = self.of(held::command(&self.binary.with_file_name("initdb")));
        initdb.arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale"]);
        if let Some(secured) = &self.secured {
            initdb.arg("--pwfile").arg(secured.password_file());
        }
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

    /// Removes all data. The server must not run.
    pub(crate) fn wipe(&self) -> Result<(), Error> {
        let entries = std::fs::read_dir(&self.data).map_err(Error::file("cannot read", &self.data))?;
        let data = entries.flatten().filter(|entry| !KEPT.iter().any(|kept| entry.file_name() == *kept));
        data.map(|entry| entry.path()).try_for_each(|path| remove(&path))
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::file("cannot remove", path)),
    }
}
