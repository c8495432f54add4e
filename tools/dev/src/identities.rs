//! Who the services of one process are to each other: certificates that are made as it starts and are in no file. Their
//! ports are on loopback, where everybody on this machine could call them.

use sluice_launcher::Service;
use sluice_launcher::certs::ProcessAuthority;
use sluice_service::tls::{Identity, Role};

use crate::error::Error;
use crate::start::start_error;

/// What is not made, should that ever fail.
const WHAT: &str = "certificates of this process";

/// Of each service; all its lives have the same.
pub(crate) struct Identities {
    pub(crate) gateway: Option<Identity>,
    pub(crate) logic: Option<Identity>,
    pub(crate) task: Option<Identity>,
}

impl Identities {
    /// Nobody has to show who they are: in development.
    pub(crate) const NONE: Self = Self { gateway: None, logic: None, task: None };

    /// Of an authority that nobody else has.
    pub(crate) fn new() -> Result<Self, Error> {
        let authority = ProcessAuthority::new().map_err(|error| start_error(WHAT, &error))?;
        let identity = |service, role| {
            let pem = authority.certify(service).map_err(|error| start_error(WHAT, &error))?;
            let made = Identity::of_process(&pem.ca, &pem.cert, &pem.key, role);
            made.map(Some).map_err(|error| start_error(WHAT, &error))
        };
        Ok(Self {
            gateway: identity(Service::Gateway, Role::Gateway)?,
            logic: identity(Service::Logic, Role::Logic)?,
            task: identity(Service::Task, Role::Task)?,
        })
    }
}
