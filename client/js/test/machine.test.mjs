// What the vectors leave to each client: pages that are seen again, publishes that are too old, queues that are full.
import assert from "node:assert/strict";
import { test } from "node:test";

import { connect, Machine } from "../dist/node.js";

/** A machine and what it wants; its frames go nowhere. */
function stage(options = {}) {
  const world = { now: 0, timers: new Map(), sent: [], told: [], outcomes: [], dials: 0, closed: [] };
  const machine = new Machine({ urls: ["a"], random: () => 0.5, now: () => world.now, ...options });
  world.settle = () => {
    for (let action; (action = machine.out.shift());) {
      if (action.do === "timer") action.ms === null ? world.timers.delete(action.name) : world.timers.set(action.name, action.ms);
      else if (action.do === "dial") world.dials++;
      else if (action.do === "send") world.sent.push(JSON.parse(action.text));
      else if (action.do === "close") world.closed.push(action.conn);
      else if (action.do === "tell") world.told.push(action.event.type);
      else if (action.do === "settle") world.outcomes.push(action.outcome);
    }
    for (let text; (text = machine.nextPublish());) world.sent.push(JSON.parse(text));
  };
  world.fire = name => {
    assert.ok(world.timers.delete(name), `the timer ${name} runs`);
    machine.timer(name);
    world.settle();
  };
  world.stand = () => {
    world.fire("dial");
    machine.frame(world.dials, JSON.stringify({ welcome: { user: "ann", ping_s: 25 } }));
    world.settle();
  };
  machine.start();
  world.settle();
  return { machine, world };
}

test("a page that is seen again cuts its own pause short, but not what the server asked for", () => {
  const { machine, world } = stage({ backoff: [60_000, 60_000] });
  world.stand();
  machine.closed(1, undefined, "cut");
  world.settle();
  assert.equal(world.timers.get("dial"), 30_000);
  machine.hurry();
  world.settle();
  assert.equal(world.timers.get("dial"), 100);
  world.stand();
  machine.frame(2, JSON.stringify({ bye: { code: 1012, reason: "restart", reconnect: true, reconnect_ms: 9_000 } }));
  machine.closed(2, 1012, "restart");
  machine.hurry();
  world.settle();
  assert.equal(world.timers.get("dial"), 9_000);
});

test("a page that is seen again asks whether its connection lives, and has another soon if it does not", () => {
  const { machine, world } = stage();
  world.stand();
  machine.hurry();
  world.settle();
  assert.deepEqual(world.sent.pop(), { ping: 1, id: 0 });
  assert.equal(world.timers.get("quiet"), 5_000);
  machine.frame(1, '{"ok":"ping","id":0}');
  world.fire("quiet");
  assert.equal(world.timers.get("quiet"), 25_000, "it lives");
  machine.hurry();
  world.settle();
  world.fire("quiet");
  assert.deepEqual([world.closed, world.told.at(-2)], [[1], "closed"]);
  assert.ok(world.timers.has("dial"));
});

test("what was first sent an hour ago is not sent again, and its outcome is unknown", () => {
  const { machine, world } = stage();
  world.stand();
  const old = machine.publish({ body: '{"pub":"r","key":"old","data":1}' });
  world.settle();
  world.now = 3_600_000;
  machine.publish({ body: '{"pub":"r","key":"new","data":1}' });
  world.settle();
  machine.closed(1, undefined, "cut");
  world.settle();
  world.sent = [];
  world.stand();
  assert.deepEqual(world.sent.map(frame => frame.key), ["new"]);
  assert.deepEqual(world.outcomes.map(({ id, error }) => [id, error.code]), [[old, "unknown"]]);
});

test("a server that never closes after retry:true is left, and so is one that never says welcome", () => {
  const { machine, world } = stage();
  world.stand();
  const id = machine.publish({ body: '{"pub":"r","key":"k","data":1}' });
  world.settle();
  machine.frame(1, JSON.stringify({ error: { code: "unavailable", message: "m", retry: true }, id }));
  world.settle();
  world.fire("fence");
  assert.deepEqual(world.closed, [1]);
  world.fire("dial");
  world.fire("welcome");
  assert.deepEqual(world.closed, [1, 2]);
  world.stand();
  assert.equal(world.sent.at(-1).key, "k");
});

test("an outbox that is full makes publishes wait, and as many more are all that may", async () => {
  const silent = () => ({ send() {}, close() {}, buffered: 0 });
  const client = connect("ws://nowhere/ws", { outboxMax: 3, open: silent });
  const outcomes = Array.from({ length: 6 }, (_, n) => client.publish("r", n));
  assert.equal(client.unanswered, 6);
  await assert.rejects(client.publish("r", 6), { code: "busy" });
  const closed = outcomes.map(outcome => assert.rejects(outcome, { code: "closed" }));
  client.close();
  await Promise.all(closed);
});
