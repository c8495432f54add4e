//! A restart of one service that the process in a folder is asked for, whether it is `sluice dev` or `sluice serve`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_dev::{Kind, State};
use sluice_launcher::probe;
use sluice_program::output;

/// Longest wait for the page to say how it stands: it is on this machine.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// The process bounds a restart itself and says so; this much later it says nothing any more.
const MARGIN: Duration = Duration::from_secs(5);
/// What a process gives a restart that says nothing of it.
const WITHOUT_WORD: Duration = Duration::from_secs(15);

/// Has a service restarted by the process of this kind in the folder, and says when it is ready again.
pub(crate) async fn restart(kind: Kind, dir: &Path, name: &str, header: (&str, &str)) -> anyhow::Result<()> {
    let nobody = || format!("no `{kind}` runs in {}: name its folder with --dir", dir.display());
    let state = State::read(kind, dir).with_context(nobody)?;
    let Some(admin) = state.admin else { bail!(nobody()) };
    // What is no name of a service is none of an address either.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("{name:?} is no service; name gateway-1, logic or task, for example");
    }
    let within = within(&admin, name).await.with_context(nobody)? + MARGIN;
    let verb = match kind {
        Kind::Dev => "dev",
        Kind::Serve => "serve",
    };
    let url = format!("{admin}/{verb}/restart/{name}");
    let answer = probe::post_header(&url, header, within).await;
    let answer =
        answer.with_context(|| format!("the restart of {name} was not answered: is the process there?"))?;
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (answer.status, said["error"].as_str()) {
        (200, _) => {}
        (401, _) => bail!("it asks for a token: --token-file with the file that it has in admin.token_file"),
        (_, why) => bail!("{}", why.unwrap_or("it did not say why")),
    }
    output::line(format_args!("{name} is ready again after {} ms", said["elapsed_ms"]))?;
    Ok(())
}

/// How long a restart may take as this service is configured. Of one that is not there nothing: the refusal comes at once. A
/// process of the version before says nothing of it, and gives up by itself.
async fn within(admin: &str, name: &str) -> anyhow::Result<Duration> {
    let answer = probe::get(&format!("{admin}/admin/instances"), ASK_WITHIN).await?;
    let services: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let mut services = services.as_array().into_iter().flatten();
    let told = services.find(|service| service["name"] == name);
    let told = told.map(|told| told["restart_within_ms"].as_u64());
    Ok(told.map_or(Duration::ZERO, |told| told.map_or(WITHOUT_WORD, Duration::from_millis)))
}
