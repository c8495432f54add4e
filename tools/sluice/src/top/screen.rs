//! What `sluice top` shows: a row for each instance with its rate since the last look, and who owns which duty. Pure.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Row, Table};
use serde_json::Value;
use tokio::time::Instant;

use crate::page::Page;

/// What one instance answered, or why not.
pub(super) struct Look {
    pub(super) url: String,
    pub(super) page: Result<Page, String>,
}

/// Who owns a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Duty {
    name: String,
    /// Empty: nobody.
    owner: String,
    owner_lives: bool,
}

impl Duty {
    pub(super) fn of(page: &Value) -> Self {
        let text = |name: &str| page.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let owner_lives = page.get("owner_lives").and_then(Value::as_bool).unwrap_or_default();
        Self { name: text("duty"), owner: text("owner"), owner_lives }
    }
}

/// An instance as last seen.
struct Seen {
    look: Look,
    at: Instant,
    /// Work that got its outcome, a second.
    rate: Option<f64>,
}

/// All of it.
#[derive(Default)]
pub(super) struct Screen {
    seen: Vec<Seen>,
    duties: Vec<Duty>,
}

const HEAD: [&str; 9] =
    ["SERVICE", "INSTANCE", "STAGE", "UP", "CONNECTIONS", "IN FLIGHT", "PER SECOND", "KILL", "ADMIN"];

const WIDTHS: [Constraint; 9] = [
    Constraint::Length(8),
    Constraint::Length(20),
    Constraint::Length(20),
    Constraint::Length(7),
    Constraint::Length(11),
    Constraint::Length(9),
    Constraint::Length(10),
    Constraint::Length(4),
    Constraint::Min(20),
];

impl Screen {
    pub(super) fn saw(&mut self, looks: Vec<Look>, duties: Vec<Duty>, at: Instant) {
        let before = std::mem::take(&mut self.seen);
        let seen = looks.into_iter().map(|look| {
            let former = before.iter().find(|seen| seen.look.url == look.url);
            let rate = former.and_then(|former| rate(former, &look, at));
            Seen { look, at, rate }
        });
        self.seen = seen.collect();
        self.duties = duties;
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let height = u16::try_from(self.seen.len() + 2).unwrap_or(u16::MAX);
        let [instances, duties] =
            Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(frame.area());
        let head = Style::new().add_modifier(Modifier::BOLD);
        let rows = self.seen.iter().map(|seen| Row::new(seen.cells()));
        frame.render_widget(Table::new(rows, WIDTHS).header(Row::new(HEAD).style(head)), instances);
        let rows = self.duties.iter().map(|duty| Row::new(duty.cells()));
        let widths = [Constraint::Length(12), Constraint::Min(20)];
        frame.render_widget(Table::new(rows, widths).header(Row::new(["DUTY", "OWNER"]).style(head)), duties);
    }
}

/// None for another life of an instance: its count began anew.
fn rate(former: &Seen, look: &Look, at: Instant) -> Option<f64> {
    let (before, now) = (former.look.page.as_ref().ok()?, look.page.as_ref().ok()?);
    let within = at.saturating_duration_since(former.at);
    let done = now.processed?.checked_sub(before.processed?)?;
    let done = done as f64;
    (before.instance == now.instance && !within.is_zero()).then(|| done / within.as_secs_f64())
}

impl Seen {
    fn cells(&self) -> [String; 9] {
        let page = match &self.look.page {
            Ok(page) => page,
            Err(error) => {
                let mut cells: [String; 9] = Default::default();
                (cells[0], cells[2]) = ("?".to_owned(), error.clone());
                cells[8].clone_from(&self.look.url);
                return cells;
            }
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        [
            page.service.clone(),
            page.instance.clone(),
            page.standing(),
            page.uptime.map(crate::status::uptime).unwrap_or_default(),
            number(page.connections),
            number(page.in_flight),
            self.rate.map(|rate| format!("{rate:.0}")).unwrap_or_default(),
            if page.safe_to_kill { "safe" } else { "no" }.to_owned(),
            self.look.url.clone(),
        ]
    }
}

impl Duty {
    fn cells(&self) -> [String; 2] {
        let owner = match (self.owner.as_str(), self.owner_lives) {
            ("", _) => "nobody".to_owned(),
            (owner, true) => owner.to_owned(),
            (owner, false) => format!("{owner}, which is gone"),
        };
        [self.name.clone(), owner]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn look(url: &str, page: &Value) -> Look {
        Look { url: url.to_owned(), page: Ok(Page::of(page)) }
    }

    fn page(instance: &str, processed: u64) -> Value {
        json!({"service": "gateway", "instance": instance, "stage": "ready", "uptime_ms": 61_000, "connections": 12,
               "in_flight": 3, "processed_count": processed, "safe_to_kill": false})
    }

    /// The lines of a terminal, one blank between words.
    fn drawn(screen: &Screen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(140, 8)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let text = terminal.backend().to_string();
        let words = |line: &str| line.trim_matches('"').split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    }

    #[test]
    fn instances_have_rates_and_duties_their_owners() {
        let mut screen = Screen::default();
        let began = Instant::now();
        screen.saw(
            vec![look("http://a:1", &page("g1", 100)), look("http://b:1", &page("g2", 9))],
            Vec::new(),
            began,
        );
        assert_eq!(
            drawn(&screen)[1],
            "gateway g1 ready 1m1s 12 3 no http://a:1",
            "there is nothing to compare with"
        );
        let duties = [
            json!({"duty": "sweep", "owner": "task-1", "owner_lives": true}),
            json!({"duty": "reap", "owner": "task-2", "owner_lives": false}),
            json!({"duty": "due/0", "owner": null, "owner_lives": false}),
        ];
        let again = vec![
            look("http://a:1", &page("g1", 600)),
            look("http://b:1", &page("g3", 10)),
            Look { url: "http://c:1".to_owned(), page: Err("no answer".to_owned()) },
        ];
        screen.saw(again, duties.iter().map(Duty::of).collect(), began + Duration::from_secs(2));
        let lines = drawn(&screen);
        assert_eq!(lines[0], "SERVICE INSTANCE STAGE UP CONNECTIONS IN FLIGHT PER SECOND KILL ADMIN");
        assert_eq!(lines[1], "gateway g1 ready 1m1s 12 3 250 no http://a:1");
        assert_eq!(lines[2], "gateway g3 ready 1m1s 12 3 no http://b:1", "another life");
        assert_eq!(lines[3], "? no answer http://c:1");
        assert_eq!(lines[5], "DUTY OWNER");
        assert_eq!(lines[6], "sweep task-1");
        assert_eq!(lines[7], "reap task-2, which is gone");
        assert_eq!(Duty::of(&duties[2]).cells()[1], "nobody");
    }
}
