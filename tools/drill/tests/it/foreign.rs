//! Clients in another language as part of a drill: Python's, whose client needs nothing built. `make drill-quick` has one on
//! Node as well.

use sluice_drill::load::{ForeignClients, Plan};
use sluice_drill::run::{self, Options};
use sluice_judge::record::{ClientEvent, PublishOutcome, RecordEntry};
use tokio_util::sync::CancellationToken;

use crate::{lines, options};

/// Numbered after the twenty ordinary ones.
const FOREIGN: [u32; 2] = [21, 22];

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_python_are_recorded_and_judged_while_each_service_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let usual = options(&dir);
    let foreign = ForeignClients { python: 2, ..ForeignClients::default() };
    // Of what each sends some is as large as a pipe.
    let plan = Plan { foreign, large_in: 20, slow_share: 0.0, ..usual.plan.clone() };
    let options = Options { plan, only: vec!["term".into()], keep: true, ..usual };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("client-"));
    let entries: Vec<RecordEntry> = records.flat_map(|path| lines(&path)).collect();
    for client in FOREIGN {
        let count = |is: fn(&ClientEvent) -> bool| {
            entries.iter().filter(|entry| entry.1 == client && is(&entry.2)).count()
        };
        assert_eq!(count(|what| matches!(what, ClientEvent::Client { kind, .. } if kind == "python")), 1);
        let stored =
            |what: &ClientEvent| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Ok(_), .. });
        let (stored, got) = (count(stored), count(|what| matches!(what, ClientEvent::Got { .. })));
        assert!(stored > 5 && got > 50, "client {client}: {stored} stored, {got} read");
        assert_eq!(count(|what| matches!(what, ClientEvent::End)), 1, "client {client}");
    }
}
