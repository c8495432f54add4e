//! The reader of events that proto/WIRE.md gives to pages, in a real browser: its gateway is rolled under it, and it hears
//! every message once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sluice_client::{Client, Options};

use crate::browser::Browser;
use crate::rig::{Dev, run, text};

/// What is published to each room.
const MESSAGES: u64 = 120;

/// As it stands there: what is documented is what is tried.
fn reader() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/WIRE.md");
    let page = fs::read_to_string(file).unwrap();
    let mut blocks = page.split("```js\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains("new EventSource(")).expect("a reader of events").to_owned()
}

/// Who may read both rooms.
fn token(dir: &Path) -> String {
    let state: Value = serde_json::from_slice(&fs::read(dir.join("sluice-dev.json")).unwrap()).unwrap();
    let secret = state["token_secret"].as_str().unwrap();
    let minted = run(&["token", "--user", "ann", "--sub", "*", "--token-secret", secret]);
    assert!(minted.status.success(), "{}", text(&minted.stderr));
    text(&minted.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_events_by_tickets_and_misses_nothing_while_its_gateway_is_rolled() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: no page read events, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "2"]);
    let token = json!(token(dir.path()));
    // A page of the gateway's own origin, as behind a balancer: what it says there is nothing.
    let own = dev.ws(0).replace("ws://", "http://").replace("/ws", "/page");
    browser.open(&own).await;
    browser.until("document.body.textContent.includes('nothing at')").await;
    browser.value(&reader()).await;
    let counted = "const Real = EventSource, urls = [], heard = []; \
                   globalThis.EventSource = class extends Real { constructor(url) { super(url); urls.push(url) } }; 0";
    browser.value(counted).await;
    browser
        .value(&format!(
            "const reader = read(['news', 'sport'], async () => {token}, frame => heard.push(frame)); 0"
        ))
        .await;
    browser.until("Object.keys(reader.at).length === 2").await;

    let (publisher, mut told) = Client::connect(Options::new(dev.ws(1))).await.unwrap();
    let folder = dir.path().to_str().unwrap();
    let publish = async {
        for n in 0..MESSAGES {
            for room in ["news", "sport"] {
                publisher.publish(room, &json!({ "n": n })).await.unwrap();
            }
            if n == MESSAGES / 3 || n == MESSAGES * 2 / 3 {
                let output =
                    tokio::task::block_in_place(|| run(&["dev", "restart", "gateway-1", "--dir", folder]));
                assert!(output.status.success(), "{}", text(&output.stderr));
                // It is back before the next roll: each cuts a stream.
                let streams = if n == MESSAGES / 3 { 2 } else { 3 };
                browser.until(&format!("urls.length >= {streams} && reader.source.readyState === 1")).await;
            }
        }
    };
    tokio::select! {
        () = publish => {}
        () = async { while told.next().await.is_some() {} } => panic!("the publisher ended"),
    }
    let all = 2 * MESSAGES;
    browser.until(&format!("heard.length >= {all}")).await;
    let heard = browser.value("heard.map(({ msg, seq }) => [msg, seq])").await;
    let mut seqs = BTreeMap::<String, Vec<u64>>::new();
    for pair in heard.as_array().unwrap() {
        seqs.entry(pair[0].as_str().unwrap().into()).or_default().push(pair[1].as_u64().unwrap());
    }
    let every: Vec<u64> = (1..=MESSAGES).collect();
    assert_eq!(seqs, [("news".to_owned(), every.clone()), ("sport".to_owned(), every)].into());
    // Each stream had a ticket of its own, and none was tried twice.
    assert_eq!(browser.value("new Set(urls).size === urls.length").await, true);
    let went_on = "urls.slice(1).every(url => /last-event-id=[0-9a-f]{16}%3Anews%3D/.test(url))";
    assert_eq!(browser.value(went_on).await, true);
    browser.value("reader.close()").await;
}
