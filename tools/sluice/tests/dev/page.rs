//! The page of `sluice dev` in a real browser: services are rolled and killed under it, and it misses nothing.

use serde_json::json;

use crate::browser::Browser;
use crate::rig::{Dev, connect, frame};

/// Connected, and in its room.
const LIVE: &str = "client.at && client.seq !== null";

async fn publish(browser: &mut Browser, text: &str) {
    let say = format!("$('text').value = '{text}', $('say').requestSubmit()");
    browser.value(&say).await;
    browser.until(&format!("$('log').textContent.includes('{text}')")).await;
}

/// Another `more` messages come.
async fn goes_on(browser: &mut Browser, more: u64) {
    let received = browser.value("client.count.received").await.as_u64().unwrap();
    browser.until(&format!("client.count.received >= {}", received + more)).await;
}

async fn missed_nothing(browser: &mut Browser) {
    browser.until("client.waiting.size === 0").await;
    let count = browser.value("client.count").await;
    let wrong = ["missed", "twice", "skipped", "gaps", "refused"].map(|name| count[name].as_u64().unwrap());
    assert_eq!(wrong, [0; 5], "{count}");
    assert_eq!(browser.value("$('missed').textContent + $('twice').textContent").await, "00");
    browser.until("$('verdict').className === 'good' && $('unanswered').textContent === '0'").await;
}

#[tokio::test]
async fn a_browser_sees_services_rolled_and_killed_and_misses_nothing() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: the page was not tested, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--gateways", "3"]);
    browser.open(dev.page()).await;
    browser.until(LIVE).await;
    publish(&mut browser, "hello from a browser").await;
    browser.value("$('tick').click()").await;
    goes_on(&mut browser, 10).await;

    // A roll of the gateway it is connected to: it moves before it must.
    let on = browser.value("$('link').dataset.gateway").await;
    let on = on.as_str().unwrap();
    browser.value(&format!("$('roll-{on}').click()")).await;
    browser.until("client.count.moves >= 1").await;
    browser.until(&format!("services.rows.get('{on}').life.textContent === '2'")).await;
    goes_on(&mut browser, 10).await;
    assert_eq!(browser.value("client.count.reconnects").await, 0, "it moved, it did not fall");

    browser.value("$('roll-all').click()").await;
    browser.until("!$('roll-all').disabled").await;
    browser.value("services.roll('logic')").await;
    browser.value("services.roll('task')").await;
    goes_on(&mut browser, 10).await;
    missed_nothing(&mut browser).await;
    let pause = browser.value("$('pause').textContent").await;
    println!("all services rolled, nothing missed; longest pause {pause} with a message every 100 ms");
    browser.picture("dev-page.png", 1000, 1030).await;

    // Each change of gateway counts once, whichever way it came.
    let changes = browser.value("client.count.moves + client.count.reconnects").await.to_string();
    assert_eq!(browser.value("$('moves').textContent").await, json!(changes));

    // A kill of everything: meanwhile nothing is called good, and a pause that lasts is no longest one yet, nor is it
    // beside one.
    dev.kill();
    browser.until("!client.at").await;
    let longest = browser.value("show.pause.ms").await;
    browser.until("$('verdict').className === 'busy' && Number($('unanswered').textContent) > 0").await;
    let so_far = "$('pause-is').textContent === 'pause so far' && /^[0-9.]+ s$/.test($('pause').textContent)";
    browser.until(so_far).await;
    assert_eq!(browser.value("show.pause.ms").await, longest);
    let _again = Dev::start(dir.path(), &["--gateways", "3"]);
    browser.until(LIVE).await;
    goes_on(&mut browser, 10).await;
    // what was an outage is called one
    let outage = "$('pause-is').textContent === 'longest pause' && show.pause.without > 500 \
                  && $('without').textContent.endsWith('of it without a gateway')";
    browser.until(outage).await;
    browser.value("$('tick').click()").await;
    missed_nothing(&mut browser).await;
    let received = browser.value("client.count.received").await;
    assert_eq!(browser.value("client.seq").await, received, "from the first to the last");
}

#[tokio::test]
async fn two_tabs_talk_while_all_gateways_are_rolled_and_miss_nothing() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: the page was not tested, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--memory"]);
    let ann = browser.open(dev.page()).await;
    browser.until(LIVE).await;
    let ben = browser.open(dev.page()).await;
    browser.until(LIVE).await;
    publish(&mut browser, "hello from the other tab").await;
    for tab in [&ann, &ben] {
        browser.look_at(tab);
        browser.until("$('log').textContent.includes('hello from the other tab')").await;
        browser.value("$('tick').click()").await;
    }
    browser.value("$('roll-all').click()").await;
    browser.until("!$('roll-all').disabled").await;
    for tab in [&ann, &ben] {
        browser.look_at(tab);
        goes_on(&mut browser, 20).await;
        browser.value("$('tick').click()").await;
        browser.until("client.waiting.size === 0").await;
        assert!(browser.value("client.changes()").await.as_u64().unwrap() > 0, "its gateway was rolled");
    }
    // All is stored that will be: the newest message is the same for both.
    let head =
        browser.value("client.room.history({ limit: 1 }).then(({ messages }) => messages[0].seq)").await;
    for tab in [&ann, &ben] {
        browser.look_at(tab);
        browser.until(&format!("client.seq === {head}")).await;
        missed_nothing(&mut browser).await;
    }
}

#[tokio::test]
async fn the_page_shows_who_sent_what_before_and_how_a_service_is() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: the page was not tested, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--memory", "--gateways", "1"]);
    let (mut ann, _) = connect(dev.ws(0), None).await;
    for n in 1..=30 {
        ann.send(json!({ "pub": "news", "data": format!("before {n}") }).to_string()).await.unwrap();
        assert_eq!(frame(&mut ann).await["seq"], n);
    }
    browser.open(dev.page()).await;
    browser.until(&format!("{LIVE} && $('log').textContent.includes('before 30')")).await;
    assert_eq!(browser.value("$('log').textContent.includes('before 10')").await, false);
    browser.value("$('earlier').click()").await;
    browser.until("$('log').textContent.includes('before 10')").await;
    browser.until("$('more').hidden").await;
    publish(&mut browser, "mine").await;
    let senders = "[...document.querySelectorAll('#log .from')].map(from => from.textContent)";
    assert_eq!(browser.value(&format!("{senders}.at(-1)")).await, "you");
    let others = browser.value(&format!("{senders}.filter(from => from !== 'you' && from).length")).await;
    assert_eq!(others, 30, "each with its sender");
    browser.until("$('received').textContent !== '0'").await;
    assert_eq!(browser.value("$('received').textContent").await, "1", "what was before is not received now");

    browser.value("$('status-gateway-1').click()").await;
    browser.until("$('status').open && $('facts').textContent.includes('instance')").await;
    let admin = dev.first["gateways"][0]["admin"].as_str().unwrap();
    assert_eq!(browser.value("$('metrics').href").await, format!("{admin}/metrics"));
}

/// A folder that was made anew signs with another secret, and a tab may be older.
#[tokio::test]
async fn a_token_that_lets_nobody_in_is_forgotten() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: the page was not tested, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--memory"]);
    browser.open(&format!("{}/livez", dev.page())).await;
    browser.until("location.pathname === '/livez'").await;
    browser.value("sessionStorage.token = 'of.another.folder'").await;
    browser.ask("Page.navigate", json!({ "url": dev.page() })).await;
    browser.until(LIVE).await;
    publish(&mut browser, "as somebody else").await;
    missed_nothing(&mut browser).await;
    assert_ne!(browser.value("sessionStorage.token").await, "of.another.folder");
}

#[tokio::test]
async fn the_page_fits_a_phone() {
    let Some(mut browser) = Browser::start().await else {
        eprintln!("SKIPPED: the page was not tested, there is no Chromium; install it with `make deps`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--memory"]);
    browser.open(dev.page()).await;
    let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true });
    browser.ask("Emulation.setDeviceMetricsOverride", phone).await;
    browser.until(&format!("{LIVE} && services.rows.size === 4")).await;
    let width = browser.value("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().unwrap() <= 360, "{width}");
    // the box is beside the first line of its label
    let beside = "(() => { const box = $('tick').getBoundingClientRect(), text = document.createRange(); \
                  text.selectNodeContents($('tick').parentElement.lastChild); \
                  const first = text.getClientRects()[0]; \
                  return first.left > box.right && first.top < box.bottom; })()";
    assert_eq!(browser.value(beside).await, true);
}
