// In a real Chromium: the chat of examples/ through a roll, an outbox over a reload, one connection for all tabs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";

import { connect } from "../dist/node.js";
import { Browser, chromium, startChat } from "./browser-kit.mjs";
import { startDev, until } from "./kit.mjs";

const skip = chromium ? false : "there is no Chromium; make deps installs it";

describe("in a browser", { skip }, () => {
  let dev, chat, browser;
  before(async () => {
    dev = await startDev(2);
    chat = await startChat(dev);
    browser = await Browser.start();
  });
  after(async () => {
    await browser?.stop();
    chat?.stop();
    await dev?.stop();
  });

  const lines = `[...document.querySelectorAll("#log li")].map(item => item.textContent)`;
  const say = text => `document.querySelector("#text").value = ${JSON.stringify(text)}, document.querySelector("#say button").click()`;
  const missed = `document.querySelector("#missed").textContent`;

  test("two people chat through a roll of all gateways, and miss nothing", async t => {
    const ann = await browser.open(`${chat.url}/?name=Ann`);
    await ann.size(900, 480);
    await ann.until(`document.querySelector("#state").textContent === "Ann: connected"`);
    await ann.value(say("hello"));
    await ann.until(`${lines}.some(line => line.startsWith("Annhello") && line.includes("✓✓"))`);
    const bob = await browser.open(`${chat.url}/?name=Bob`);
    await bob.until(`${lines}.some(line => line.startsWith("Annhello"))`); // from the history
    await ann.until(`document.querySelector("#members").textContent.includes("Bob")`);
    await bob.until(`document.querySelector("#members").textContent === "AnnBob"`);
    let n = 0;
    const ticking = setInterval(() => void (n++ % 2 ? ann : bob).value(say(`tick ${n}`)), 100);
    t.after(() => clearInterval(ticking));
    for (const name of dev.names) {
      const came = await ann.value(`${lines}.length`);
      await dev.restart(name);
      await ann.until(`${lines}.length > ${came + 10} && document.querySelector("#state").textContent === "Ann: connected"`);
    }
    clearInterval(ticking);
    await until(() => n > 0, "it ticks");
    for (const tab of [ann, bob]) {
      await tab.until(`${lines}.filter(line => line.includes("tick")).length === ${n} && !${lines}.some(line => line.includes("…"))`);
      assert.equal(await tab.value(missed), "0 missed");
    }
    assert.deepEqual(
      await ann.value(`${lines}.filter(line => line.includes("tick")).map(line => line.match(/tick \\d+/)[0])`),
      await bob.value(`${lines}.filter(line => line.includes("tick")).map(line => line.match(/tick \\d+/)[0])`),
    );
    for (const [tab, text] of [[ann, "all gateways were rolled while we talked"], [bob, "nothing is missing here"], [ann, "nor here"]]) {
      await tab.value(say(text));
      for (const other of [ann, bob]) await other.until(`${lines}.some(line => line.includes(${JSON.stringify(text)}) && !line.includes("…"))`);
    }
    await ann.picture("chat.png");
    await bob.close();
    await ann.until(`document.querySelector("#members").textContent === "Ann"`);
    await ann.close();
  });

  test("what was said before is read by scrolling up", async () => {
    const writer = connect(dev.urls[0], { token: dev.token("Eve") });
    await Promise.all(Array.from({ length: 130 }, (_, n) => writer.publish("chat.random", { text: `old ${n}` })));
    const tab = await browser.open(`${chat.url}/?name=Ann#random`);
    await tab.until(`${lines}.length === 50`);
    for (const count of [100, 130]) {
      await tab.value(`document.querySelector("main").scrollTop = 0`);
      await tab.until(`${lines}.length === ${count}`);
    }
    const texts = await tab.value(`[...document.querySelectorAll("#log li")].map(item => Number(item.childNodes[1].textContent.slice(4)))`);
    assert.deepEqual(texts, Array.from({ length: 130 }, (_, n) => n));
    await tab.close();
    writer.close();
  });

  // A page of the test's own, at the same address: modules of dist/ in it are served by another server.
  async function page(t, setup) {
    const files = name => readFileSync(new URL(`../dist/${name}`, import.meta.url));
    const server = createServer(({ url }, response) => {
      const isScript = url.endsWith(".js");
      response.writeHead(200, { "Content-Type": isScript ? "text/javascript" : "text/html" });
      response.end(isScript ? files(url.slice(1)) : `<script type="module">${setup(front.url)}</script>`);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    // the gateway lets in pages whose address is its own: upgrades go on to the front door with that Host
    const front = { url: `ws://127.0.0.1:${server.address().port}/ws` };
    server.on("upgrade", (request, socket, head) => chat.upgrade(request, socket, head));
    t.after(() => {
      server.close();
      server.closeAllConnections();
    });
    return { url: `http://127.0.0.1:${server.address().port}/` };
  }

  test("an outbox outlives its page: a reload sends what was not answered, once and in order", async t => {
    const own = await page(t, url => `
      import { connect } from "/index.js";
      import { indexedDbStore } from "/store.js";
      window.client = connect("${url}", { token: "${dev.token("Ann")}", store: indexedDbStore("Ann") });
    `);
    const tab = await browser.open(own.url);
    await tab.until(`client.state === "open"`);
    await tab.value(`client.publish("kept", "before")`);
    chat.cut(true);
    await tab.until(`client.state === "reconnecting"`);
    await tab.value(`for (let n = 0; n < 5; n++) client.publish("kept", n).catch(() => {}); undefined`);
    await tab.until(`client.unanswered === 5`);
    await tab.ask("Page.reload", {});
    await tab.until(`client.unanswered === 5 && client.state !== "open"`);
    await tab.value(`void client.publish("kept", "after")`);
    chat.cut(false);
    await tab.until(`client.state === "open" && client.unanswered === 0`);
    const reader = connect(dev.urls[0], { token: dev.token("Eve") });
    const { messages } = await reader.history("kept");
    assert.deepEqual(messages.map(message => message.data), ["before", 0, 1, 2, 3, 4, "after"]);
    await tab.ask("Page.reload", {});
    await tab.until(`client.state === "open" && client.unanswered === 0`);
    assert.equal((await reader.history("kept")).messages.length, 7, "nothing is sent twice");
    reader.close();
    await tab.close();
  });

  test("tabs share one connection, and another leads when the leader is closed", async t => {
    const own = await page(t, url => `
      import { connectShared } from "/shared.js";
      window.client = connectShared("${url}", { token: "${dev.token("Ann")}", name: "Ann" });
      window.seen = [];
      window.room = client.room("shared", { after: 0, presence: true });
      room.on("message", ({ seq, data }) => seen.push([seq, data]));
    `);
    await until(() => chat.open.size === 0, "tabs of other tests are gone");
    const first = await browser.open(own.url);
    await first.until(`client.state === "open"`);
    assert.deepEqual(await first.value(`client.publish("shared", 1).then(({ seq }) => seq)`), 1);
    await first.until(`seen.length === 1`);
    const second = await browser.open(own.url), third = await browser.open(own.url);
    for (const tab of [second, third]) await tab.until(`client.state === "open" && seen.length === 1`); // it catches up
    assert.equal(chat.open.size, 1, "one connection for three tabs");
    assert.equal(await second.value(`client.publish("shared", 2).then(({ seq }) => seq)`), 2);
    for (const tab of [first, second, third]) await tab.until(`seen.length === 2 && room.members.length === 1`);
    // the leader goes while others publish
    void second.value(`window.outcomes = Promise.all(Array.from({ length: 50 }, (_, n) => client.publish("shared", n + 3)))`).catch(() => {});
    await first.close();
    const seqs = await second.value(`outcomes.then(all => all.map(({ seq }) => seq))`);
    assert.deepEqual(seqs, Array.from({ length: 50 }, (_, n) => n + 3));
    for (const tab of [second, third]) {
      await tab.until(`seen.length === 52`);
      assert.deepEqual(await tab.value(`seen`), Array.from({ length: 52 }, (_, n) => [n + 1, n + 1]));
    }
    const { messages } = await third.value(`client.history("shared", { limit: 2 })`);
    assert.deepEqual(messages.map(message => message.data), [51, 52]);
    // one that leaves in order hands over too
    await second.value(`client.close()`);
    assert.equal(await third.value(`client.publish("shared", 53).then(({ seq }) => seq)`), 53);
    await second.close();
    await third.close();
  });
});

describe("the page of the README", { skip }, () => {
  test("two tabs have everything through a roll", async t => {
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
    const [, block] = /^```html\n(.*?)^```/ms.exec(readme);
    let document;
    const server = createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(document));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const origin = `http://localhost:${server.address().port}`;
    const dev = await startDev(2, "--origin", origin);
    const browser = await Browser.start();
    t.after(async () => {
      await browser.stop();
      server.close();
      server.closeAllConnections();
      await dev.stop();
    });
    // its addresses are the usual ones, those of a test are not
    document = block.replace("http://127.0.0.1:8081", dev.page).replace("ws://127.0.0.1:8080/ws", dev.urls[0]);
    assert.ok(document.includes(`${dev.page}/sluice.js`) && document.includes(dev.urls[0]), "it names the usual addresses");

    const tabs = [await browser.open(origin), await browser.open(origin)];
    const lines = `[...document.querySelectorAll("#log li")].map(item => item.textContent)`;
    const texts = `${lines}.map(line => line.split(": ")[1])`;
    const state = `document.querySelector("#state").textContent`;
    for (const tab of tabs) await tab.until(`${state} === "open"`);
    const say = n => tabs[n % 2].value(`document.querySelector("#text").value = "${n}", document.querySelector("#say button").click()`);
    let n = 0;
    const talk = async count => { for (let end = n + count; n < end; n++) await say(n); };
    await talk(5);
    const roll = dev.restart(dev.names[0]);
    let isOver = false;
    roll.finally(() => { isOver = true; }).catch(() => undefined);
    while (!isOver) await talk(1);
    await roll;
    await talk(5);
    for (const tab of tabs) {
      await tab.until(`${lines}.length === ${n}`);
      assert.equal(await tab.value(`document.querySelector("#missed").textContent`), "0");
    }
    assert.deepEqual(await tabs[0].value(texts), await tabs[1].value(texts), "both in one order");
    assert.ok((await tabs[0].value(lines)).some(line => line.startsWith("me: ")) && (await tabs[0].value(lines)).some(line => line.startsWith("anon-")));
  });
});
