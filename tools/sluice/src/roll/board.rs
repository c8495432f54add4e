//! What a roll shows: a table that is written over in a terminal, lines about what happened elsewhere. It looks at the
//! admin pages of all instances, and holds nothing up.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use sluice_program::output::{self, Unwritten};
use tokio::time::{Instant, sleep};

use super::instance::Instance;
use crate::page::{self, Page};

/// Between two looks, and the longest look.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

pub(super) struct Board {
    terminal: bool,
    began: Instant,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    rows: BTreeMap<String, Row>,
    /// Lines of the table on the screen now.
    lines: usize,
    /// Why standard output took nothing: nothing more is written to it.
    unwritten: Option<Unwritten>,
}

/// What is known of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    /// What the roll does or did with it.
    step: String,
    page: Option<Page>,
}

/// What an admin page says, beside what the roll does.
fn words(page: &Page) -> String {
    let count =
        |number: Option<u64>, what: &str| number.map(|n| format!("{n:>6} {what}")).unwrap_or_default();
    let mut text = format!(
        "{:<10} {:<19} {:<17}",
        page.stage,
        count(page.connections, "connections"),
        count(page.in_flight, "in flight")
    );
    if let Some(left) = page.remaining {
        text.push_str(&format!("  {:.1} s left", left.as_secs_f32()));
        if !page.blockers.is_empty() {
            text.push_str(&format!(", waits for {}", page.blockers));
        }
    }
    text.trim_end().to_owned()
}

impl Board {
    pub(super) fn new(instances: &[Instance]) -> Self {
        let rows = instances.iter().map(|instance| (instance.name.clone(), Row::default())).collect();
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, began: Instant::now(), shown: Mutex::new(Shown { rows, ..Shown::default() }) }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the roll does with an instance; a line where nothing is written over.
    pub(super) fn step(&self, name: &str, step: &str) {
        let mut shown = self.shown();
        let row = shown.rows.entry(name.to_owned()).or_default();
        // Steps are said each time they are looked at; a log shows only what is new.
        if row.step == step {
            return;
        }
        step.clone_into(&mut row.step);
        if self.terminal {
            self.draw(&mut shown);
        } else {
            shown.print(&format!("{}{name:<12} {step}\n", self.clock()));
        }
    }

    /// Something that stays.
    pub(super) fn say(&self, text: &str) {
        let mut shown = self.shown();
        // The table is taken away first and drawn anew below: lines of a log may not stand inside it.
        let clear = up(shown.lines);
        shown.lines = 0;
        shown.print(&format!("{clear}{}{text}\n", self.clock()));
        if self.terminal {
            self.draw(&mut shown);
        }
    }

    /// Looks at everybody until it is dropped.
    pub(super) async fn watch(&self, instances: &[Instance]) {
        loop {
            let looks = instances.iter().filter_map(|instance| Some((&instance.name, instance.admin()?)));
            let looks = looks.map(|(name, admin)| async move { (name, look(&admin).await) });
            // All at once: one that does not answer must not make the others' figures old.
            for (name, page) in join_all(looks).await {
                self.seen(name, page);
            }
            sleep(LOOK.0).await;
        }
    }

    /// A stage that changed is worth a line.
    fn seen(&self, name: &str, page: Option<Page>) {
        let mut shown = self.shown();
        let Some(row) = shown.rows.get_mut(name) else { return };
        let stage = |page: &Option<Page>| page.as_ref().map(|page| page.stage.clone());
        let changed = stage(&row.page) != stage(&page);
        row.page = page;
        if self.terminal {
            self.draw(&mut shown);
        } else if let (true, Some(page)) = (changed, &row.page) {
            let line = format!("{}{name:<12}   {}\n", self.clock(), words(page));
            shown.print(&line);
        }
    }

    fn clock(&self) -> String {
        let seconds = self.began.elapsed().as_secs();
        format!("{:>3}:{:02}  ", seconds / 60, seconds % 60)
    }

    fn draw(&self, shown: &mut Shown) {
        let table = table(&shown.rows);
        let clear = up(shown.lines);
        shown.print(&format!("{clear}{table}"));
        shown.lines = table.lines().count();
    }

    /// What the end of a roll has to say of standard output.
    pub(super) fn written(&self) -> Result<(), Unwritten> {
        self.shown().unwritten.take().map_or(Ok(()), Err)
    }
}

impl Shown {
    /// A roll goes on whether or not somebody reads it.
    fn print(&mut self, text: &str) {
        if self.unwritten.is_none() {
            self.unwritten = output::text(text).err();
        }
    }
}

/// Back to the first of so many lines, and everything below it away.
fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn table(rows: &BTreeMap<String, Row>) -> String {
    let line = |(name, row): (&String, &Row)| {
        let page = row.page.as_ref().map_or_else(|| "no answer".to_owned(), words);
        format!("  {name:<12} {:<44} {page}\n", row.step)
    };
    rows.iter().map(line).collect()
}

async fn look(admin: &str) -> Option<Page> {
    page::ask(admin, LOOK.1).await.ok().map(|page| Page::of(&page))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_where_a_gateway_stands() {
        let page = json!({"stage": "drain", "connections": 12, "in_flight": 3, "remaining_ms": 1_500,
                          "blockers": {"connection": 12}});
        let row = Row { step: "stopping".into(), page: Some(Page::of(&page)) };
        let text = table(&BTreeMap::from([("gateway-1".into(), row), ("task-1".into(), Row::default())]));
        let (first, second) = text.trim_end().split_once('\n').unwrap();
        assert!(first.starts_with("  gateway-1    stopping "), "{first}");
        assert!(first.contains("drain          12 connections       3 in flight"), "{first}");
        assert!(first.ends_with("1.5 s left, waits for connection=12"), "{first}");
        assert!(second.ends_with("no answer"), "{second}");
    }

    #[test]
    fn who_serves_waits_for_nobody() {
        let page = json!({"stage": "ready", "in_flight": 0, "remaining_ms": null, "blockers": {"store": 1}});
        assert_eq!(words(&Page::of(&page)), "ready                               0 in flight");
        assert_eq!(Page::of(&json!({})).stage, "?");
    }
}
