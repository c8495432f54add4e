//! The load of the drill around what a test does, and its judge afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use sluice_drill::load::Plan;
use sluice_drill::run::{self, During, Intervention, Options, Outcome};
use sluice_drill::scenario::Scenario;
use sluice_drill::target::given::Wanted;
use sluice_drill::target::{Ended, Ending};
use sluice_launcher::{Engines, probe};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::engine::{SECRET, STORE};

/// Admin pages that compose.yaml publishes, as the drill numbers them.
const ADMINS: [&str; 3] =
    ["gateway-1=http://127.0.0.1:8081", "logic-1=http://127.0.0.1:7071", "task-1=http://127.0.0.1:7072"];
/// Everything is whole again within this, also where somebody else uses the machine.
const RETURN: Duration = Duration::from_secs(120);
/// Longest answer of an admin page.
const LOOK: Duration = Duration::from_secs(2);

/// How many clients; a machine that is busy with something else is told to have fewer.
pub fn clients() -> u32 {
    number("SLUICE_TEST_CLIENTS")
}

/// Publishes a second, likewise.
pub fn rate_per_s() -> u32 {
    number("SLUICE_TEST_RATE")
}

fn number(variable: &str) -> u32 {
    std::env::var(variable).map_or(200, |number| number.parse().expect("a number"))
}

/// A drill of the deployment that compose.yaml brings up.
fn options(scenario: Scenario, given: Wanted, dir: &Path) -> Options {
    Options {
        scenario,
        rounds: None,
        calm: run::CALM,
        only: Vec::new(),
        plan: Plan {
            seed: run::new_seed(),
            clients: clients(),
            rate_per_s: rate_per_s(),
            ..scenario.usual_plan()
        },
        counts: [0; 3],
        engines: Engines::default(),
        secure: false,
        bin_dir: None,
        previous: None,
        settings: Vec::new(),
        habits: Vec::new(),
        slow_links: Vec::new(),
        given: Wanted {
            gateways: vec!["ws://127.0.0.1:8080/ws".into()],
            admins: ADMINS.map(String::from).to_vec(),
            ..given
        },
        dir: dir.join("records"),
        keep: true,
        command: "containers".into(),
        quiet: true,
    }
}

/// Runs `work` under load and has it judged: nothing lost, doubled, reordered or left behind. The records stay for as
/// long as what is returned.
pub async fn under_load(work: impl AsyncFnOnce(&During)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let given = Wanted { store: Some(STORE.into()), token_secret: SECRET.into(), ..Wanted::default() };
    let options = options(Scenario::Calm, given, dir.path());
    let (during, stop) = (During::default(), CancellationToken::new());
    let work = async {
        during.steady.cancelled().await;
        work(&during).await;
        during.over.cancel();
    };
    let (outcome, ()) = tokio::join!(run::around(&options, Some(&during), &stop), work);
    green(outcome.unwrap(), dir)
}

/// `sluice drill quick`: SIGTERM and SIGKILL to each of these containers, each service's, and everything judged. `store`: how
/// the judge comes to PostgreSQL.
pub async fn drill_quick(store: String, token_secret: &str, containers: &[(&str, String)]) {
    let dir = tempfile::tempdir().unwrap();
    let given = Wanted {
        store: Some(store),
        token_secret: token_secret.into(),
        containers: containers.iter().map(|(service, id)| format!("{service}-1={id}")).collect(),
        ..Wanted::default()
    };
    let options =
        Options { rounds: Some(2 * containers.len()), ..options(Scenario::Quick, given, dir.path()) };
    options.check().unwrap();
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let dir = green(outcome, dir);
    // A fault that could not be done would have been left out.
    let done = faults(&dir.path().join("records"));
    assert_eq!(done.len(), 2 * containers.len(), "{done:?}");
}

fn green(outcome: Outcome, dir: TempDir) -> TempDir {
    println!("{}", outcome.report(None).unwrap());
    if !outcome.is_green() {
        panic!("not green; the records are in {}", dir.keep().display());
    }
    dir
}

/// Waits until everything of compose.yaml is ready, and nearly everybody connected: some are away of their own will at
/// any moment. Health checks of the engine are not waited for, they come later.
pub async fn whole() {
    let until = Instant::now() + RETURN;
    while let Some(lack) = lack().await {
        assert!(Instant::now() < until, "{lack}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn lack() -> Option<String> {
    for (place, admin) in ADMINS.iter().filter_map(|admin| admin.split_once('=')) {
        match probe::get(&format!("{admin}/readyz"), LOOK).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Some(format!("{place}: {}", answer.body)),
            Err(error) => return Some(format!("{place}: {error}")),
        }
    }
    let page = probe::get("http://127.0.0.1:8081/status", LOOK).await;
    let page = page.map(|page| serde_json::from_str::<serde_json::Value>(&page.body).unwrap());
    let connected = page.map_or(0, |page| page["connections"].as_u64().unwrap_or_default());
    let lacks = connected * 100 < u64::from(clients()) * 95;
    lacks.then(|| format!("{connected} of {} came back", clients()))
}

/// What was done, as the judge has it.
pub fn faults(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("faults.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What clients wrote down, a line each, but for the messages they got.
pub fn records(dir: &Path) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("client-"));
    let text = files.map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>();
    let lines = text.lines().filter(|line| !line.contains(r#"{"got":"#));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Says what was done to whom from `began` until now, when it is whole again; with `code`, how it ended.
pub async fn did(during: &During, kind: &str, target: &str, began: Instant, code: Option<(i32, Duration)>) {
    whole().await;
    let exit = code.map(|(code, took)| Ended {
        how: if code == 137 { Ending::Signal(9) } else { Ending::Code(code) },
        took,
    });
    let intervention = Intervention {
        kind: format!("{kind} {target}"),
        target: target.into(),
        began,
        healed: Instant::now(),
        exit,
    };
    println!("{kind} {target}: whole again after {:.1} s", began.elapsed().as_secs_f32());
    during.did(intervention);
}
