// A page that nobody sees: its timers wake once a second, here never.
import assert from "node:assert/strict";
import { test } from "node:test";

const listens = { addEventListener() {}, removeEventListener() {} };
Object.assign(globalThis, listens, { document: { visibilityState: "hidden", ...listens } });
const { connect } = await import("../dist/index.js");

/** Lets what waits for promises go on. */
const settled = () => new Promise(resolve => setImmediate(resolve));

/** A client on its first connection, which is told to move in so many ms of what is left: whom it has dialled by then. */
async function dialled(t, visibilityState, within_ms, reconnect_ms) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  document.visibilityState = visibilityState;
  const sockets = [];
  const open = (url, _token, events) => {
    sockets.push({ url, events });
    return { send() {}, close() {}, buffered: 0 };
  };
  const client = connect("ws://one/ws", { or: ["ws://two/ws"], open });
  t.after(() => client.close());
  t.mock.timers.tick(0);
  await settled();
  const say = frame => sockets[0].events.text(JSON.stringify(frame));
  say({ welcome: { session: "s", instance: "one", user: "u", epoch: "e", ping_s: 25, limits: {} } });
  assert.equal(client.state, "open");
  say({ drain: { reason: "restart", within_ms, reconnect_ms } });
  await settled();
  return { urls: () => sockets.map(({ url }) => url) };
}

test("a hidden page whose timer may be late moves when it is told, and once", async t => {
  const { urls } = await dialled(t, "hidden", 700, 60);
  assert.deepEqual(urls(), ["ws://one/ws", "ws://two/ws"]);
  t.mock.timers.tick(1_000);
  await settled();
  assert.equal(urls().length, 2);
});

test("who is seen, has the time, or has nobody to go to comes when it was told to", async t => {
  for (const [visibility, within, ms] of [["visible", 700, 60], ["hidden", 2_300, 1_300], ["hidden", 500, 60]]) {
    await t.test(`${visibility}, ${ms} ms of ${within}`, async t => {
      const { urls } = await dialled(t, visibility, within, ms);
      assert.deepEqual(urls(), ["ws://one/ws"]);
      t.mock.timers.tick(ms);
      await settled();
      assert.deepEqual(urls(), ["ws://one/ws", "ws://two/ws"]);
    });
  }
});
