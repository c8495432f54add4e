//! `sluice top`: all instances in a terminal, looked at again and again. Asks; what is shown is in [`screen`].

mod screen;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use futures::future::join_all;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde_json::Value;
use sluice_launcher::probe;
use tokio::time::{Instant, sleep};

use crate::page::{self, Page};
use crate::signals::Signals;
use screen::{Duty, Look, Screen};

/// Longest wait for an answer: one that hangs must not make the others' figures old.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How often keys are looked for.
const KEYS_EVERY: Duration = Duration::from_millis(50);
/// Nobody reads faster, and admin pages have more to do.
const EVERY_MS_MIN: u64 = 200;

/// Watch all instances live: stages, connections, rates, duties
///
/// `q` or Ctrl-C ends it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice top http://127.0.0.1:8081 http://127.0.0.1:7071 http://127.0.0.1:7072
  sluice top --every-ms 500 http://gateway-1:8081 http://gateway-2:8081")]
pub(crate) struct Arguments {
    /// Admin addresses, http://host:port
    #[arg(required = true, value_name = "ADMIN-URL")]
    urls: Vec<String>,
    /// Between two looks, milliseconds
    #[arg(long, default_value_t = 1_000)]
    every_ms: u64,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    anyhow::ensure!(
        terminal,
        "this needs a terminal; `sluice status ADMIN-URL` says the same once, anywhere"
    );
    let signals = Signals::install()?;
    let mut terminal = ratatui::try_init()?;
    let watched = watch(&mut terminal, &arguments, signals).await;
    // Also after an error: a terminal in raw mode is of no use to anybody.
    let restored = ratatui::try_restore();
    watched?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

/// Until somebody asks it to end.
async fn watch(
    terminal: &mut DefaultTerminal,
    arguments: &Arguments,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let every = Duration::from_millis(arguments.every_ms.max(EVERY_MS_MIN));
    let mut screen = Screen::default();
    loop {
        let (looks, duties) = tokio::select! {
            biased;
            // A look may wait for services that hang; the key that ends all does not wait for it.
            asked = asked_to_end(&mut signals) => return asked,
            looked = look(&arguments.urls) => looked,
        };
        screen.saw(looks, duties, Instant::now());
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            biased;
            asked = asked_to_end(&mut signals) => return asked,
            () = sleep(every) => {}
        }
    }
}

async fn asked_to_end(signals: &mut Signals) -> anyhow::Result<()> {
    let keys = async {
        loop {
            // Never waits: an event is there, or is looked for again.
            while event::poll(Duration::ZERO)? {
                if ends(&event::read()?) {
                    return anyhow::Ok(());
                }
            }
            sleep(KEYS_EVERY).await;
        }
    };
    tokio::select! {
        () = signals.asked() => Ok(()),
        ended = keys => ended,
    }
}

/// In raw mode Ctrl-C is a key like others.
fn ends(event: &Event) -> bool {
    event.as_key_press_event().is_some_and(|key| {
        let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        control_c || key.code == KeyCode::Char('q') || key.code == KeyCode::Esc
    })
}

/// All at once, and the duties as the first one who answers knows them.
async fn look(urls: &[String]) -> (Vec<Look>, Vec<Duty>) {
    let one = |url: &String| {
        let url = url.clone();
        async move {
            let page = page::ask(&url, LOOK_WITHIN).await.map(|page| Page::of(&page));
            Look { url, page }
        }
    };
    let looks: Vec<Look> = join_all(urls.iter().map(one)).await;
    let knows = looks.iter().find(|look| look.page.is_ok());
    let duties = match knows {
        Some(look) => duties(&look.url).await,
        None => Vec::new(),
    };
    (looks, duties)
}

async fn duties(admin: &str) -> Vec<Duty> {
    let url = format!("{}/admin/duties", admin.trim_end_matches('/'));
    let answer = probe::get(&url, LOOK_WITHIN).await.ok();
    let all = answer.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    all.as_ref().and_then(Value::as_array).into_iter().flatten().map(Duty::of).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn q_and_ctrl_c_end_it_and_nothing_else() {
        let key = |code, modifiers| ends(&Event::Key(KeyEvent::new(code, modifiers)));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !ends(&Event::Resize(1, 1)));
    }
}
