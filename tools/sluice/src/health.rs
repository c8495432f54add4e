//! `sluice health`: asks services how they are.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use sluice_launcher::probe;
use sluice_program::output;

/// Ask services whether they are ready; exit code 0 when all are, else 1
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice health http://127.0.0.1:8081
  sluice health http://gateway-1:8081 http://logic-1:7071 http://task-1:7072")]
pub(crate) struct Arguments {
    /// Admin addresses, http://host:port
    #[arg(required = true, value_name = "ADMIN-URL")]
    urls: Vec<String>,
    /// Longest wait for each, seconds
    #[arg(long, default_value_t = 2)]
    timeout_s: u64,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let timeout = Duration::from_secs(arguments.timeout_s);
    let mut all = true;
    for url in &arguments.urls {
        let (ready, text) = ask(url, timeout).await;
        output::line(format_args!("{url}  {text}"))?;
        all &= ready;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it is ready, and a line for people with its stage and reason.
async fn ask(url: &str, timeout: Duration) -> (bool, String) {
    let answer = match probe::get(&format!("{}/readyz", url.trim_end_matches('/')), timeout).await {
        Ok(answer) => answer,
        Err(error) => return (false, format!("no answer: {error}")),
    };
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let field = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
    let stage = field("stage").map(|stage| format!(", stage {stage}")).unwrap_or_default();
    let reason = field("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    match answer.status {
        200 => (true, format!("ready{stage}")),
        // Not ready is an answer, and a reason comes with it. Anything else is no service of ours.
        503 => (false, format!("not ready{stage}{reason}")),
        status => (false, format!("answers {status}: is this an admin address?")),
    }
}
