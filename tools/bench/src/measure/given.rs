//! A deployment that runs already, in the place of a cluster of its own: its processes are not looked at, so that only what
//! clients see is measured.

use std::path::PathBuf;

use anyhow::Context as _;
use sluice_program::secret::TokenSecret;

use super::Bed;
use crate::Common;
use crate::spec::Entrance;

/// Which one.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Given {
    /// A gateway that runs already, ws:// or wss:// (TLS), instead of a cluster of its own; may be repeated
    #[arg(long = "gateway", value_name = "WS-URL")]
    gateways: Vec<String>,
    /// Certificate authority to trust at wss:// beside the public ones, PEM
    #[arg(long, env = "SLUICE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    secret: TokenSecret,
}

/// Where clients of a measurement go, and who signs their tokens.
pub(super) struct Site {
    /// Of its own, if it has one.
    pub(super) bed: Option<Bed>,
    entrances: Vec<Entrance>,
    pub(super) secret: String,
}

impl Given {
    pub(super) const fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// This one, or a cluster with so many gateways.
    pub(super) async fn or_own(&self, common: &Common, gateways: usize) -> anyhow::Result<Site> {
        if self.is_empty() {
            let bed = Bed::start(common, gateways).await?;
            let entrances = (0..gateways).map(|index| bed.gateway(index).map(Entrance::from));
            let entrances = entrances.collect::<anyhow::Result<Vec<_>>>()?;
            return Ok(Site { entrances, secret: bed.secret(), bed: Some(bed) });
        }
        let secret = self.secret.read("sluice-bench")?;
        let secret = secret.context("clients need tokens: give --token-secret or --token-secret-file")?;
        let entrances = self.gateways.iter().map(|url| Entrance::Url(url.clone(), self.ca.clone())).collect();
        Ok(Site { bed: None, entrances, secret })
    }

    /// As it stands in a command.
    pub(super) fn words(&self) -> String {
        self.gateways.iter().map(|url| format!(" --gateway {url}")).collect()
    }
}

impl Site {
    /// The gateway with this number; of one alone it is the same for all.
    pub(super) fn entrance(&self, index: usize) -> anyhow::Result<Entrance> {
        self.entrances.get(index % self.entrances.len().max(1)).cloned().context("there is no gateway")
    }

    /// Ends what was started.
    pub(super) async fn end(self) {
        if let Some(bed) = self.bed {
            bed.cluster.stop().await;
        }
    }
}
