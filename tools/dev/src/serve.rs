//! `sluice serve`: the services of one process for a team's production. The parts and the supervision are those of
//! `sluice dev`; what is told to the services is configured, and lets nobody in without a token.

mod config;
mod example;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use sluice_lifecycle::Lifecycle;
use sluice_service::listen;

use crate::dev_config::{address, admin_at, grpc, task};
use crate::error::Error;
use crate::folder::{Folder, Kind};
use crate::identities::Identities;
use crate::page::Pages;
use crate::ports::Ports;
use crate::start::{Parts, start_error};
use crate::supervised::{Addresses, Placed, ServiceConfig};
use crate::supervisor::Dev;

pub use config::ServeConfig;
pub use example::{Example, write_example};

impl Dev {
    /// Starts everything that `config` says on `lifecycle`, which has to have its plan, and returns when all are ready.
    ///
    /// # Errors
    /// [`Error`]: nothing that could be started differently goes on; stop the lifecycle then.
    pub async fn serve(config: &ServeConfig, lifecycle: &Lifecycle) -> Result<Self, Error> {
        let token = config.admin.token().map_err(|why| Error::Contradictions(vec![why]))?;
        let (folder, mut state) = Folder::open(Kind::Serve, Path::new(&config.dir))?;
        let mut ports = Ports::new(Ipv4Addr::LOCALHOST.into(), std::mem::take(&mut state.ports));
        let admin = config.admin.listen.as_str();
        let bound = listen::bind(admin).await.map_err(|error| start_error("admin.listen", &error))?;
        let services = services(config, &mut ports).await?;
        for note in &ports.notes {
            tracing::info!("{note}");
        }
        let parts = Parts {
            folder,
            state,
            ports,
            bound,
            services,
            memory: false,
            leave_grace: Duration::from_secs(config.leave_grace_s),
            identities: Identities::new()?,
            pages: Pages::ForOperators(token),
        };
        Self::run(parts, lifecycle).await
    }
}

/// The services with their addresses. Their own admin pages are for this process: it shows what they say at its own.
async fn services(config: &ServeConfig, ports: &mut Ports) -> Result<Placed, Error> {
    let mut services = Vec::new();
    for (number, listen) in (1..).zip(&config.listen) {
        let name = format!("gateway-{number}");
        let clients = free(&format!("listen {listen}"), listen.as_str(), &name, ports).await?;
        let admin = ports.choose(&format!("{name} admin"), 0)?;
        let mut told = config.gateway(listen);
        (told.listen, told.admin, told.grpc) = (address(clients), admin_at(admin), grpc(admin));
        told.trace = config.trace.clone();
        let at = Addresses { clients: Some(clients), api: None, admin };
        services.push((name, ServiceConfig::Gateway(Box::new(told)), at));
    }
    let admin = ports.choose("logic admin", 0)?;
    let mut told = config.logic();
    let api = if config.api.is_on() {
        Some(free("api.listen", &config.api.listen, "logic api", ports).await?)
    } else {
        None
    };
    told.api.listen = api.map(|api| api.to_string()).unwrap_or_default();
    (told.admin, told.grpc) = (admin_at(admin), grpc(admin));
    let at = Addresses { clients: None, api, admin };
    services.push(("logic".to_owned(), ServiceConfig::Logic(Box::new(told)), at));
    let admin = ports.choose("task admin", 0)?;
    let at = Addresses { clients: None, api: None, admin };
    let told = sluice_task::config::Config { trace: config.trace.clone(), ..task(admin) };
    services.push(("task".to_owned(), ServiceConfig::Task(Box::new(told)), at));
    Ok(services)
}

/// What an address stands for, if nobody listens there: said now, by its key, and not by a service that dies of it.
async fn free(key: &str, listen: &str, name: &str, ports: &mut Ports) -> Result<SocketAddr, Error> {
    let bound = listen::bind(listen).await.map_err(|error| start_error(key, &error))?;
    let at = bound.address();
    if !listen.ends_with(":0") {
        return Ok(at);
    }
    // One that stays while its service restarts, which the kernel's own choice would not.
    Ok(SocketAddr::new(at.ip(), ports.choose(name, 0)?.port()))
}
