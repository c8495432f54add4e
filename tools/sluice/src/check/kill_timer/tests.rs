//! Units, Compose files and manifests as people write them, and our own.

use super::*;

const TOTAL: Duration = Duration::from_secs(8);

/// What is too short for a stop of 8 s, in words.
fn short(text: &str) -> Vec<String> {
    let timers = kill_timers(text, |_| None).unwrap();
    timers.iter().filter_map(|timer| timer.against(TOTAL)).map(|short| short.to_string()).collect()
}

fn own(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_unit() {
    let unit = |settings: &str| {
        format!("[Unit]\nAfter=x\n[Service]\nExecStart=/usr/local/bin/sluice-logic --config x\n{settings}\n")
    };
    assert_eq!(
        short(&unit("# a comment\nTimeoutStopSec=8")),
        [
            "line 6: TimeoutStopSec is 8s, but a stop of logic may take 8s and 250ms more: set it to 9 s or more, or \
          lower shutdown.total_ms"
        ]
    );
    for enough in [
        "TimeoutStopSec=9",
        "TimeoutStopSec=1min 30s",
        "TimeoutStopSec=infinity",
        "",
        "TimeoutStopSec=1\nTimeoutStopSec=12",
    ] {
        assert_eq!(short(&unit(enough)), Vec::<String>::new(), "{enough}");
    }
    assert_eq!(short(&unit("TimeoutSec=5s")).len(), 1);
    let long = Duration::from_secs(120);
    let said = kill_timers(&unit(""), |_| None).unwrap()[0].against(long).unwrap().to_string();
    assert!(said.starts_with("TimeoutStopSec is not set and so 90s"), "{said}");
}

#[test]
fn a_compose_file() {
    let file = "x-all: &all\n  stop_grace_period: ${GRACE:-10}s\nservices:\n  gateway-1:\n    <<: *all\n  task:\n    \
                image: sluice-task\n    stop_grace_period: \"5s\"  # too short\n  logic:\n    image: sluice-logic\n  \
                redis:\n    stop_grace_period: 1s\n  postgres:\n    environment:\n      POSTGRES_USER: sluice\n    \
                stop_grace_period: 2s\n";
    let said = short(file);
    assert_eq!(said.len(), 1, "those of stores are nobody's business here: {said:?}");
    assert!(
        said[0].starts_with("line 8: stop_grace_period is 5s, but a stop of task may take 8s"),
        "{said:?}"
    );
    let timers = kill_timers(file, |name| (name == "GRACE").then(|| "8".to_owned())).unwrap();
    let said: Vec<String> =
        timers.iter().filter_map(|timer| timer.against(TOTAL)).map(|short| short.to_string()).collect();
    assert!(said[0].starts_with("line 2: stop_grace_period is 8s, but a stop may"), "{said:?}");
    let long = Duration::from_secs(20);
    assert_eq!(
        timers.iter().filter(|timer| timer.against(long).is_some()).count(),
        3,
        "logic has the default"
    );
}

#[test]
fn a_manifest() {
    let object = |service: &str, setting: &str| {
        format!(
            "kind: Deployment\nspec:\n  template:\n    spec:\n{setting}      containers:\n        - name: x\n          \
             image: registry.example/sluice-{service}:1\n"
        )
    };
    let both = format!(
        "{}---\n{}",
        object("gateway", "      terminationGracePeriodSeconds: 5\n"),
        object("task", "")
    );
    let said = short(&both);
    assert_eq!(said.len(), 1, "30 s are enough: {said:?}");
    assert!(
        said[0].starts_with("line 5: terminationGracePeriodSeconds is 5s, but a stop of gateway"),
        "{said:?}"
    );
    let template = object("gateway", "      terminationGracePeriodSeconds: {{ .Values.grace }}\n");
    let error = kill_timers(&template, |_| None).unwrap_err();
    assert!(error.starts_with("line 5: ") && error.contains("fill in"), "{error}");
}

#[test]
fn what_is_none_of_these_is_refused() {
    assert!(kill_timers("total_ms = 8000\n", |_| None).unwrap_err().contains("no unit"));
    assert!(kill_timers("", |_| None).is_err());
}

#[test]
fn our_own_files_leave_room_for_a_stop() {
    for (name, timers) in [
        ("compose.yaml", 1),
        ("compose.cluster.yaml", 1),
        ("systemd/sluice-gateway.service", 1),
        ("systemd/sluice-logic.service", 1),
        ("systemd/sluice-task.service", 1),
    ] {
        let text = own(name);
        assert_eq!(kill_timers(&text, |_| None).unwrap().len(), timers, "{name}");
        assert_eq!(short(&text), Vec::<String>::new(), "{name}");
    }
}
