//! Pages: whoever asks for a part hears that there is more, and finds all of it by going on.

use serde_json::{Value, json};
use sluice_client::HistoryRange;
use tokio::time::{Instant, sleep};

use crate::kit::{Ground, SOON, client_of, json, json_with, socket_of};

pub async fn a_short_page_of_history_says_where_to_go_on<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let mut socket = socket_of(&ground, "ann", 0).await;
    // Of these a page of 1 MiB holds 17.
    let filler = "x".repeat(60_000);
    for n in 1..=30 {
        socket.send(format!(r#"{{"pub":"news","data":"{filler}","id":{n}}}"#)).await.unwrap();
    }
    for _ in 1..=30 {
        assert_eq!(json(&mut socket).await["ok"], "pub");
    }
    for (direction, first) in [("before", None), ("after", Some(0_u64))] {
        let (mut seqs, mut at, mut pages) = (Vec::new(), first, 0);
        loop {
            let mut question = json!({"history": "news", "limit": 30});
            if let Some(at) = at {
                question[direction] = at.into();
            }
            socket.send(question.to_string()).await.unwrap();
            let page = json(&mut socket).await;
            let found: Vec<u64> =
                page["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect();
            assert!(!found.is_empty() && found.is_sorted(), "{found:?}");
            pages += 1;
            seqs.extend(found);
            at = page[direction].as_u64();
            assert_eq!(page["more"] == true, at.is_some(), "{direction} {at:?}");
            if at.is_none() {
                break;
            }
        }
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=30).collect::<Vec<u64>>(), "{direction}");
        assert!(pages >= 2, "one page cannot hold them");
    }

    // The library says the same.
    let (client, _events) = sluice_client::Client::connect(client_of(&ground, "bob", 0)).await.unwrap();
    let page = client.history("news", HistoryRange::After(25), Some(3)).await.unwrap();
    assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [26, 27, 28]);
    assert_eq!(page.more, Some(HistoryRange::After(28)));
    let page = client.history("news", HistoryRange::Before(3), None).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (2, None));
    client.close().await;
    ground.stop().await;
}

pub async fn presence_says_how_many_there_are_and_gives_everybody_page_by_page<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let mut there = Vec::new();
    // Two connections each for the first two.
    for (n, user) in ["eve", "ann", "dan", "bob", "cat", "ann", "eve"].into_iter().enumerate() {
        let mut socket = socket_of(&ground, user, n % 2).await;
        socket.send(r#"{"sub":"news"}"#).await.unwrap();
        json_with(&mut socket, "ok").await;
        there.push(socket);
    }
    let mut asker = socket_of(&ground, "asker", 0).await;
    let by = Instant::now() + SOON;
    loop {
        let (names, answers) = everybody(&mut asker).await;
        let counted = answers.iter().all(|page| page["count"] == 5 && page["connections"] == 7);
        if counted && names == ["ann", "bob", "cat", "dan", "eve"] {
            let first = &answers[0]["users"];
            assert_eq!((&first[0]["connections"], &first[1]["connections"]), (&2.into(), &1.into()));
            break;
        }
        assert!(Instant::now() < by, "{answers:?}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    drop(there);
    ground.stop().await;
}

/// Asks for pages of two until there are no more.
async fn everybody(asker: &mut sluice_client::raw::Socket) -> (Vec<String>, Vec<Value>) {
    let (mut names, mut answers) = (Vec::<String>::new(), Vec::new());
    loop {
        let mut question = json!({"presence": "news", "limit": 2});
        if let Some(last) = names.last() {
            question["after"] = last.as_str().into();
        }
        asker.send(question.to_string()).await.unwrap();
        let page = json_with(asker, "ok").await;
        let users = page["users"].as_array().unwrap();
        names.extend(users.iter().map(|user| user["user"].as_str().unwrap().to_owned()));
        let more = page["more"] == true;
        assert!(!more || users.len() == 2, "{page}");
        answers.push(page);
        if !more {
            return (names, answers);
        }
    }
}
