//! An older copy of the file is put back: a command begins a new epoch, and clients hear of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Dev, connect, frame, run, text};

/// What a client is told that subscribes with the position it remembers.
async fn sub(url: &str, epoch: Option<&str>) -> Value {
    let (mut socket, _) = connect(url, None).await;
    let mut sub = json!({ "sub": "news", "after": 1 });
    if let Some(epoch) = epoch {
        sub["epoch"] = json!(epoch);
    }
    socket.send(sub.to_string()).await.unwrap();
    frame(&mut socket).await
}

fn new_epoch(folder: &Path) -> (bool, String) {
    let output = run(&["store", "new-epoch", "--dir", folder.to_str().unwrap()]);
    (output.status.success(), text(if output.status.success() { &output.stdout } else { &output.stderr }))
}

#[tokio::test]
async fn a_new_epoch_needs_the_folder_for_itself_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let (mut socket, _) = connect(dev.ws(0), None).await;
    socket.send(json!({ "pub": "news", "data": 1 }).to_string()).await.unwrap();
    assert_eq!(frame(&mut socket).await["ok"], "pub");
    let old = sub(dev.ws(0), None).await["epoch"].as_str().unwrap().to_owned();
    assert_eq!(sub(dev.ws(0), Some(&old)).await["recovered"], true);

    let (done, said) = new_epoch(dir.path());
    assert!(!done && said.contains("`sluice dev` runs in") && said.contains("stop it first"), "{said}");
    assert_eq!(sub(dev.ws(0), Some(&old)).await["recovered"], true, "nothing was done");
    // However it ended: what it held is free.
    dev.kill();
    let (done, said) = new_epoch(dir.path());
    assert!(done && said.starts_with("new epoch "), "{said}");

    let again = Dev::start(dir.path(), &["--gateways", "1"]);
    let told = sub(again.ws(0), Some(&old)).await;
    assert_eq!((&told["recovered"], &told["head"]), (&json!(false), &json!(1)), "{told}");
    assert_eq!(said, format!("new epoch {}", told["epoch"].as_str().unwrap()));
}

#[test]
fn where_nothing_was_kept_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for folder in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let (done, said) = new_epoch(&folder);
        assert!(
            !done && said.contains("no `sluice dev` has kept messages in") && said.contains("--dir"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let said = text(&run(&["store", "new-epoch"]).stderr);
    assert!(said.contains("--postgres") && said.contains("--dir"), "{said}");
}
