//! A backup under load has everything that was answered before it began; put back it is another epoch, and clients are
//! told. However it is put back.

use std::path::Path;

use serde_json::{Value, json};
use sluice_client::raw::{Frame, Socket};

use crate::rig::{Dev, connect, frame, run, stored_for, text, token};

fn publish(n: usize) -> String {
    json!({ "pub": "news", "data": n, "key": format!("{n:032x}"), "id": n }).to_string()
}

/// Publishes without a pause until it is told that the backup is over, and some more; how many were answered.
async fn load(mut socket: Socket, from: usize, over: &std::sync::atomic::AtomicBool) -> usize {
    let (mut sent, mut answered) = (from, from);
    loop {
        while sent < answered + 50 {
            socket.send(publish(sent)).await.unwrap();
            sent += 1;
        }
        let answer = frame(&mut socket).await;
        assert_eq!(answer["ok"], "pub", "{answer}");
        answered += 1;
        if over.load(std::sync::atomic::Ordering::Relaxed) {
            return answered;
        }
    }
}

fn store(arguments: &[&str]) -> (bool, String) {
    let output = run(&[&["store"], arguments].concat());
    (output.status.success(), text(if output.status.success() { &output.stdout } else { &output.stderr }))
}

/// What a client is told that comes back to a position.
async fn sub(serve: &Dev, after: usize, epoch: &str) -> Value {
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    socket.send(json!({ "sub": "news", "after": after, "epoch": epoch }).to_string()).await.unwrap();
    frame(&mut socket).await
}

/// The numbers stored, which are 0, 1, 2, … without a hole.
async fn count(serve: &Dev) -> usize {
    let stored = stored_for(serve.ws(0), "news", Some(&token("ann"))).await;
    let numbers: Vec<usize> = stored.iter().map(|m| m["data"].as_u64().unwrap() as usize).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    numbers.len()
}

/// A store with `before` messages that were answered, a backup made under load, and the epoch it is of.
async fn backed_up(dir: &Path, file: &str, before: usize) -> (usize, String) {
    let mut serve = Dev::serve(dir);
    let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
    for n in 0..before {
        socket.send(publish(n)).await.unwrap();
    }
    for _ in 0..before {
        assert_eq!(frame(&mut socket).await["ok"], "pub");
    }
    let over = std::sync::atomic::AtomicBool::new(false);
    let folder = dir.to_str().unwrap().to_owned();
    let copy = async {
        let file = file.to_owned();
        let made = tokio::task::spawn_blocking(move || store(&["backup", &file, "--dir", &folder]));
        let made = made.await.unwrap();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        made
    };
    let ((done, said), answered) = tokio::join!(copy, load(socket, before, &over));
    assert!(done && said.contains("messages in 1 rooms"), "{said}");
    let (mut socket, _) = connect(serve.ws(1), Some(&token("ann"))).await;
    socket.send(json!({ "sub": "news", "after": answered }).to_string()).await.unwrap();
    let epoch = frame(&mut socket).await["epoch"].as_str().unwrap().to_owned();
    serve.signal("-TERM");
    assert_eq!(serve.wait().0.code(), Some(0));
    while let Frame::Text(_) = socket.next().await {}
    (answered, epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_answered_and_is_another_epoch_when_it_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("monday.db");
    let (data, file) = (dir.path().join("data"), file.to_str().unwrap());
    let (answered, epoch) = backed_up(&data, file, 300).await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside the backup");

    let folder = data.to_str().unwrap();
    let (done, said) = store(&["backup", file, "--dir", folder]);
    assert!(!done && said.contains("is there already"), "{said}");
    let (done, said) = store(&["restore", file, "--dir", folder]);
    assert!(!done && said.contains("sluice.db is there already"), "{said}");
    let elsewhere = dir.path().join("restored");
    let (done, said) = store(&["restore", file, "--dir", elsewhere.to_str().unwrap()]);
    assert!(done && said.contains("new epoch"), "{said}");

    let restored = Dev::serve(&elsewhere);
    let there = count(&restored).await;
    assert!((300..=answered + 50).contains(&there), "{there} of {answered}");
    let told = sub(&restored, there, &epoch).await;
    assert_eq!(told["recovered"], false, "a position of what was lost: {told}");
    assert!(said.ends_with(told["epoch"].as_str().unwrap()), "{said}: {told}");
    let (_, again) = connect(restored.ws(0), Some(&token("ann"))).await;
    assert!(!again.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_put_in_place_by_hand_is_another_epoch_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("monday.db");
    let (data, path) = (dir.path().join("data"), file.to_str().unwrap());
    let (_, epoch) = backed_up(&data, path, 20).await;
    for end in ["db", "db-wal", "db-shm"] {
        std::fs::remove_file(data.join(format!("sluice.{end}"))).ok();
    }
    std::fs::copy(&file, data.join("sluice.db")).unwrap();
    let mut restored = Dev::serve(&data);
    let there = count(&restored).await;
    let told = sub(&restored, there, &epoch).await;
    assert_eq!(told["recovered"], false, "{told}");
    restored.kill();
    // Once: a restart is no other history.
    let again = Dev::serve(&data);
    assert_eq!(sub(&again, there, told["epoch"].as_str().unwrap()).await["recovered"], true);
}

#[test]
fn what_is_no_store_is_not_copied_and_what_is_no_backup_is_not_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (done, said) = store(&["backup", &path("x.db"), "--dir", &path("")]);
    assert!(!done && said.contains("has kept messages in"), "{said}");
    std::fs::write(path("letter"), "dear friend".repeat(100)).unwrap();
    let (done, said) = store(&["restore", &path("letter"), "--dir", &path("data")]);
    assert!(!done && said.contains("letter"), "{said}");
    // A plain copy has no mark: nothing tells that it is older.
    let mut serve = Dev::serve(Path::new(&path("data")));
    serve.signal("-TERM");
    serve.wait();
    std::fs::copy(path("data/sluice.db"), path("plain.db")).unwrap();
    let (done, said) = store(&["restore", &path("plain.db"), "--dir", &path("other")]);
    assert!(!done && said.contains("sluice store new-epoch"), "{said}");
    assert!(!Path::new(&path("other/sluice.db")).exists());
}
