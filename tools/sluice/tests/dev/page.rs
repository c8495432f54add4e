//! The page of `sluice dev` in a real browser: services are rolled and killed under it, and it misses nothing.

use serde_json::json;

use crate::browser::Browser;
use crate::rig::Dev;

/// Where to leave a picture of the page, to be shown in README.md.
const PICTURE: &str = "SLUICE_TEST_PICTURE";

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
    browser.until("client.outbox.size === 0").await;
    let count = browser.value("client.count").await;
    let wrong = ["missed", "twice", "skipped", "refused"].map(|name| count[name].as_u64().unwrap());
    assert_eq!(wrong, [0; 4], "{count}");
    assert_eq!(browser.value("$('missed').textContent + $('twice').textContent").await, "00");
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
    browser.until("client.active?.live").await;
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
    picture(&mut browser).await;

    // A kill of everything: it comes back by itself.
    dev.kill();
    browser.until("!client.active").await;
    let _again = Dev::start(dir.path(), &["--gateways", "3"]);
    browser.until("client.active?.live").await;
    goes_on(&mut browser, 10).await;
    browser.value("$('tick').click()").await;
    missed_nothing(&mut browser).await;
    let received = browser.value("client.count.received").await;
    assert_eq!(browser.value("client.after").await, received, "from the first to the last");
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
    browser.until("client.active?.live && services.rows.size === 4").await;
    let width = browser.value("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().unwrap() <= 360, "{width}");
}

/// For people: the page as it looks now, where the environment wants it.
async fn picture(browser: &mut Browser) {
    let Some(path) = std::env::var_os(PICTURE) else { return };
    let size = json!({ "width": 1000, "height": 970, "deviceScaleFactor": 1, "mobile": false });
    browser.ask("Emulation.setDeviceMetricsOverride", size).await;
    let shot = browser.ask("Page.captureScreenshot", json!({ "format": "png" })).await;
    let file = std::fs::File::create(&path).unwrap();
    let mut decode = std::process::Command::new("base64");
    let mut child = decode.arg("-d").stdin(std::process::Stdio::piped()).stdout(file).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, shot["data"].as_str().unwrap().as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}
