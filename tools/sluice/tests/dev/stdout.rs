//! Verbs around a `sluice dev` whose standard output nobody reads or takes: never a panic, and no message is published
//! twice because of it.

use std::process::{Command, Stdio};

use crate::rig::{Dev, SOON, run, sluice, text, until};
use crate::sink::{Sink, ends_well, into};

#[test]
fn verbs_around_a_running_dev() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let url = dev.ws(0).to_owned();
    let publish = || {
        let mut command = sluice();
        command.args(["pub", "news", "[1]", "--url", &url]);
        command
    };
    assert_eq!(into(Sink::Closed, &mut publish()), (Some(0), String::new()), "it is stored");
    let (code, said) = into(Sink::Full, &mut publish());
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("the message is stored") && said.contains("\"seq\":2"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");

    ends_well(sluice().args(["sub", "news", "--after", "0", "--json", "--url", &url]), 0);
    ends_well(sluice().args(["sub", "news", "--after", "0", "--url", &url]), 0);
    ends_well(sluice().args(["status", dev.first["gateways"][0]["admin"].as_str().unwrap()]), 0);
    ends_well(sluice().args(["dev", "restart", "logic", "--dir"]).arg(dir.path()), 0);
    dev.signal("-TERM");
    assert_eq!(dev.wait().0.code(), Some(0));
    let (code, said) = into(Sink::Full, sluice().args(["store", "new-epoch", "--dir"]).arg(dir.path()));
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("has begun, but"), "{said}");
    let closed = into(Sink::Closed, sluice().args(["store", "new-epoch", "--dir"]).arg(dir.path()));
    assert_eq!(closed, (Some(0), String::new()));
}

/// What runs until a signal goes on: whoever started it may not listen.
#[tokio::test]
async fn a_dev_goes_on_and_stops() {
    for (sink, json) in Sink::ALL.into_iter().flat_map(|sink| [(sink, true), (sink, false)]) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = sluice();
        command.args(["dev", "--dir"]).arg(dir.path()).args(json.then_some("--json"));
        let mut child = command.stdout(sink.stdio()).stderr(Stdio::null()).spawn().unwrap();
        let answers = || {
            let output = run(&["dev", "restart", "task", "--dir", dir.path().to_str().unwrap()]);
            text(&output.stdout).contains("ready again")
        };
        until("it serves", async || answers()).await;
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let began = std::time::Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{sink:?} {json}");
        assert!(began.elapsed() < SOON);
    }
}
