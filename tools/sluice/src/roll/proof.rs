//! Proof of a roll: the load of the drill around it, and the drill's judge at the end. Judges nothing itself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use sluice_drill::load::Plan;
use sluice_drill::run::{self, During, Options, Outcome};
use sluice_drill::scenario::Scenario;
use sluice_drill::target::given::Wanted;
use sluice_launcher::Engines;
use sluice_program::output;
use sluice_program::secret::TokenSecret;
use tokio_util::sync::CancellationToken;

use super::docker::Seen;
use super::instance::Instance;
use super::kind::Kind;
use crate::paste;

/// The load around a roll
#[derive(clap::Args)]
#[command(next_help_heading = "Proof")]
pub(super) struct Proof {
    /// Put load on it during the roll, and judge what clients saw; needs --gateway, --store and --token-secret where
    /// the containers do not tell
    #[arg(long)]
    prove: bool,
    /// Where clients connect; may be repeated
    #[arg(long, value_name = "WS-URL")]
    gateway: Vec<String>,
    /// Where the truth is read from; without it the address that logic has, if this machine reaches it
    #[arg(long, env = "SLUICE_POSTGRES__URL", hide_env_values = true, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    secret: TokenSecret,
    /// How many clients
    #[arg(long, default_value_t = 200, value_name = "N")]
    clients: u32,
    /// Publishes a second, all clients together
    #[arg(long, default_value_t = 200, value_name = "N")]
    rate: u32,
    /// Folder for the records, new; without it `./roll-SEED`
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Proof {
    pub(super) fn is_wanted(&self) -> bool {
        self.prove
    }

    /// What the drill is asked for; what nobody said is read from the containers.
    pub(super) fn options(&self, instances: &[Instance], seen: &[Seen]) -> anyhow::Result<Options> {
        let seed = run::new_seed();
        let options = Options {
            scenario: Scenario::Calm,
            rounds: None,
            calm: run::CALM,
            only: Vec::new(),
            plan: Plan { seed, clients: self.clients, rate_per_s: self.rate, ..Plan::default() },
            counts: [0; 3],
            engines: Engines::default(),
            secure: false,
            bin_dir: None,
            previous: None,
            settings: Vec::new(),
            habits: Vec::new(),
            slow_links: Vec::new(),
            given: self.given(instances, seen)?,
            dir: self.dir.clone().unwrap_or_else(|| PathBuf::from(format!("roll-{seed}"))),
            keep: self.dir.is_some(),
            command: paste::command(),
            quiet: true,
        };
        options.check()?;
        Ok(options)
    }

    fn given(&self, instances: &[Instance], seen: &[Seen]) -> anyhow::Result<Wanted> {
        let mut gateways = self.gateway.clone();
        if gateways.is_empty() {
            let of = |seen: &&Seen| Kind::of_program(&seen.path) == Some(Kind::Gateway);
            gateways = seen
                .iter()
                .filter(of)
                .filter_map(|seen| seen.env("SLUICE_ADVERTISE"))
                .map(String::from)
                .collect();
            gateways.sort();
            gateways.dedup();
        }
        let logic = seen.iter().find(|seen| Kind::of_program(&seen.path) == Some(Kind::Logic));
        let said = |name: &str| logic.and_then(|logic| logic.env(name)).map(String::from);
        let store = || said("SLUICE_POSTGRES__URL").map(|url| from_here(&url, seen));
        let secret = self.secret.read("sluice")?.or_else(|| said("SLUICE_TOKEN_SECRET"));
        Ok(Wanted {
            gateways,
            admins: admins(instances),
            store: self.store.clone().or_else(store),
            token_secret: secret.unwrap_or_default(),
            ..Wanted::default()
        })
    }
}

/// Numbered from 1, as the drill calls them.
fn admins(instances: &[Instance]) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<Kind, usize>::new();
    let place = |instance: &Instance| {
        let admin = instance.admin()?;
        let index = counts.entry(instance.kind).or_default();
        *index += 1;
        Some(format!("{}-{index}={admin}", instance.kind))
    };
    instances.iter().filter_map(place).collect()
}

/// A URL between containers, with the address of the container in place of its service's name.
fn from_here(url: &str, seen: &[Seen]) -> String {
    let inside = || {
        let (before, rest) = url.split_once('@')?;
        let end = rest.find([':', '/'])?;
        let (host, after) = rest.split_at(end);
        let address = seen.iter().find(|seen| seen.service() == Some(host))?.address()?;
        Some(format!("{before}@{address}{after}"))
    };
    inside().unwrap_or_else(|| url.to_owned())
}

/// Runs `roll` once the load is steady; what came of both. A roll that has begun is not left because its proof failed.
pub(super) async fn around<T>(
    options: &Options,
    during: &During,
    asked: &CancellationToken,
    roll: impl Future<Output = T>,
) -> anyhow::Result<(T, anyhow::Result<Outcome>)> {
    let stop = CancellationToken::new();
    let rolled = async {
        if asked.run_until_cancelled(during.steady.cancelled()).await.is_none() {
            stop.cancel();
            return None;
        }
        let end = roll.await;
        during.over.cancel();
        Some(end)
    };
    let drill = run::around(options, Some(during), &stop);
    tokio::pin!(drill, rolled);
    let (end, outcome) = tokio::select! {
        end = &mut rolled => (end, drill.await),
        // Its proof failed in the middle: the roll goes on to its end, or half of it would be of another version.
        outcome = &mut drill => match during.steady.is_cancelled() {
            true => (rolled.await, outcome),
            false => (None, outcome),
        },
    };
    match end {
        Some(end) => Ok((end, outcome)),
        None => Err(outcome.err().context("interrupted")?)
            .context("nothing was rolled: the load did not get steady"),
    }
}

/// Prints the verdict; its exit code.
pub(super) fn report(options: &Options, outcome: &Outcome) -> anyhow::Result<ExitCode> {
    output::text(&outcome.report(None)?)?;
    if !options.keep {
        outcome.forget()?;
    }
    Ok(outcome.exit_code())
}
