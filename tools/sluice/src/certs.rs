//! `sluice certs`: an authority and certificates for the services, for those who have none.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use sluice_launcher::Service;
use sluice_launcher::certs::{self, AUTHORITY_DAYS, CERTIFICATE_DAYS};
use sluice_program::output;
use sluice_service::tls::{Role, Tls};

/// Make an authority and a certificate for each service, for encrypted links between them
///
/// Writes ca.pem and ca.key, and a certificate and a key for gateway, logic and task; keys are readable by their owner
/// alone. Nothing is overwritten without --renew, which keeps the authority: services take new files over by themselves.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice certs --dir ./certs
  sluice certs --dir ./certs --renew        # new certificates of the same authority, for example each month
  sluice certs --dir ./certs --if-missing   # in a script that runs at every start
  sluice certs --dir ./certs --if-missing --server nats --server db.example   # for what services stand on")]
pub(crate) struct Arguments {
    /// Folder for the files, made when missing
    #[arg(long)]
    dir: PathBuf,
    /// Replace certificates and keys of the services, of the authority that is there
    #[arg(long, conflicts_with = "if_missing")]
    renew: bool,
    /// Do nothing when the certificates are there and good
    #[arg(long)]
    if_missing: bool,
    /// Also a certificate for a server that services stand on, HOST.pem and HOST.key, by the host name or address that
    /// services call it by; may be repeated
    #[arg(long = "server", value_name = "HOST")]
    servers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { dir, renew, if_missing, servers } = arguments;
    let kept = || format!("the certificates are in {}, but", dir.display());
    if if_missing && certs::files(&dir, Service::Logic).ca.exists() {
        certs::make_missing(&dir)?;
        // A renewal that was killed leaves a key beside the certificate of another.
        check(&dir).with_context(|| {
            format!(
                "`sluice certs --dir {} --renew` makes new certificates of the same authority",
                dir.display()
            )
        })?;
        for host in servers.iter().filter(|host| !dir.join(format!("{host}.pem")).exists()) {
            certs::make_for_server(&dir, host)?;
        }
        output::line(format_args!("{} has certificates that are good", dir.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if renew {
        certs::renew(&dir)?;
        make_for(&servers, &dir)?;
        check(&dir)?;
        output::line(format_args!(
            "new certificates of the same authority are in {}, good for {CERTIFICATE_DAYS} days; services that read \
             these files take them over by themselves",
            dir.display()
        ))
        .with_context(kept)?;
    } else {
        certs::make(&dir)?;
        make_for(&servers, &dir)?;
        check(&dir)?;
        output::line(next_steps(&dir)).with_context(kept)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make_for(servers: &[String], dir: &Path) -> anyhow::Result<()> {
    for host in servers {
        certs::make_for_server(dir, host)?;
    }
    Ok(())
}

/// As the services will look at them.
fn check(dir: &Path) -> anyhow::Result<()> {
    for (service, role) in
        [(Service::Gateway, Role::Gateway), (Service::Logic, Role::Logic), (Service::Task, Role::Task)]
    {
        let files = certs::files(dir, service);
        let text = |path: PathBuf| path.display().to_string();
        let tls = Tls { ca: text(files.ca), cert: text(files.cert), key: text(files.key) };
        if let Some(wrong) = tls.check(role) {
            anyhow::bail!("{wrong}");
        }
    }
    Ok(())
}

fn next_steps(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "An authority and three certificates are in {dir}, good for {AUTHORITY_DAYS} and {CERTIFICATE_DAYS} days.

Next:
  1. Copy ca.pem and the two files of a service to where it runs; each service needs no more than these three.
  2. Name them in its configuration, for example for logic:

       [tls]
       ca = \"/etc/sluice/tls/ca.pem\"
       cert = \"/etc/sluice/tls/logic.pem\"
       key = \"/etc/sluice/tls/logic.key\"

  3. Try it: sluice check --logic logic.toml --gateway gateway.toml --task task.toml
  4. Keep ca.key where no service runs: whoever has it can be any service.
  5. Renew before the year is over: sluice certs --dir {dir} --renew, and copy the files again."
    )
}
