// Against a real `sluice dev`: what the library does for a program.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { connect, SluiceError } from "../dist/node.js";
import { startDev, until, Wire } from "./kit.mjs";

let dev;
before(async () => { dev = await startDev(); });
after(() => dev?.stop());

function ann(options = {}) {
  return connect(dev.urls[0], { token: dev.token("ann"), or: dev.urls.slice(1), ...options });
}

async function take(iterable, count) {
  const taken = [];
  for await (const one of iterable) if (taken.push(one) === count) break;
  return taken;
}

test("publishes before there is a connection, and hears itself", async () => {
  const client = ann();
  const room = client.room("first");
  const stored = Promise.all([room.publish("one"), room.publish({ two: [2] })]);
  const seqs = (await stored).map(one => one.seq);
  assert.deepEqual(seqs, [1, 2]);
  const again = client.room("first");
  assert.equal(again, room);
  client.close();
});

test("iterators have each message once, in order, and leave with the room", async () => {
  const client = ann();
  const room = client.room("iterated", { after: 0 });
  for (const n of [1, 2, 3]) await room.publish(n);
  const messages = await take(room, 3);
  assert.deepEqual(messages.map(message => [message.seq, message.from, message.data]), [[1, "ann", 1], [2, "ann", 2], [3, "ann", 3]]);
  assert.equal(room.position.after, 3);
  assert.match(room.position.epoch, /^[0-9a-f]{16}$/);
  const rest = take(room, 9);
  room.leave();
  assert.deepEqual(await rest, []);
  // and another one begins where the first was
  const resumed = client.room("iterated", { ...room.position, after: 1 });
  assert.deepEqual((await take(resumed, 2)).map(message => message.seq), [2, 3]);
  client.close();
});

test("a reader that is behind leaves the room, and misses nothing", async () => {
  const writer = ann(), reader = ann();
  const room = reader.room("slow", { after: 0 });
  await Promise.all(Array.from({ length: 3000 }, (_, n) => writer.publish("slow", n)));
  await reader.ping();
  await until(() => room.isPaused, "it is paused");
  assert.ok(room.queue.length <= 1024, `bounded: ${room.queue.length}`);
  const messages = await take(room, 3000);
  assert.deepEqual(messages.map(message => message.data), Array.from({ length: 3000 }, (_, n) => n));
  writer.close();
  reader.close();
});

test("history is read page by page", async () => {
  const client = ann();
  for (let n = 1; n <= 5; n++) await client.publish("paged", n);
  const newest = await client.history("paged", { limit: 2 });
  assert.deepEqual(newest.messages.map(message => message.data), [4, 5]);
  const before = await client.history("paged", { ...newest.more, limit: 2 });
  assert.deepEqual(before.messages.map(message => message.data), [2, 3]);
  const last = await client.history("paged", { ...before.more, limit: 2 });
  assert.deepEqual([last.messages.map(message => message.data), last.more], [[1], undefined]);
  const oldest = await client.history("paged", { after: 0, limit: 1 });
  assert.deepEqual(oldest.more, { after: 1 });
  client.close();
});

test("a message for later waits, and is taken back", async () => {
  const client = ann();
  const waits = await client.publish("later", 1, { delayMs: 3_600_000 });
  assert.ok(waits.due > Date.now() + 3_000_000);
  assert.equal(await client.cancel("later", waits.key), true);
  assert.equal(await client.cancel("later", "nothing"), false);
  const room = client.room("later");
  await client.publish("later", "soon", { delayMs: 1 });
  assert.equal((await take(room, 1))[0].data, "soon");
  client.close();
});

test("the same key is stored once, and other data under it are a conflict", async () => {
  const client = ann();
  const first = await client.publish("keyed", 1, { key: "k1" });
  assert.deepEqual(await client.publish("keyed", 1, { key: "k1" }), first);
  await assert.rejects(client.publish("keyed", 2, { key: "k1" }), { code: "conflict" });
  client.close();
});

test("what no server would take is refused at once", async () => {
  const client = ann();
  await assert.rejects(client.publish("r", "x".repeat(70_000)), { code: "too_large" });
  await assert.rejects(client.publish("r", "€".repeat(22_000)), { code: "too_large" });
  await assert.rejects(client.publish("r", undefined), { code: "invalid" });
  await assert.rejects(client.publish("", 1), { code: "invalid" });
  assert.throws(() => client.room("x".repeat(200)), SluiceError);
  await client.publish("r", "€".repeat(21_000));
  client.close();
});

test("who is there is known, and who comes and goes", async () => {
  const first = ann();
  const room = first.room("lobby", { presence: true });
  const changes = [];
  room.on("members", list => changes.push(list.map(user => user.user)));
  await until(() => room.members.some(user => user.user === "ann"), "ann sees herself");
  const bob = connect(dev.urls[1], { token: dev.token("bob", { info: { name: "Bob" } }) });
  bob.room("lobby");
  await until(() => room.members.some(user => user.user === "bob"), "bob has come");
  assert.deepEqual(room.members.find(user => user.user === "bob").info, { name: "Bob" });
  bob.close(); // a goodbye: told a second later
  await until(() => !room.members.some(user => user.user === "bob"), "bob has gone");
  assert.ok(changes.length >= 2);
  first.close();
});

test("a token that is refused is asked for again, and a second refusal ends it", async () => {
  const given = ["rubbish", dev.token("ann"), dev.token("ann")];
  let asked = 0;
  const client = connect(dev.urls[0], { token: async () => given[asked++], backoff: [10, 20] });
  await client.publish("tokens", 1);
  assert.equal(asked, 2);
  client.close();
  const refused = connect(dev.urls[0], { token: () => "rubbish", backoff: [10, 20] });
  const ended = new Promise(resolve => refused.on("ended", resolve));
  await assert.rejects(refused.publish("tokens", 1), { code: "closed" });
  assert.match((await ended).reason, /token/i);
  assert.equal(refused.state, "ended");
});

test("a token that ends while it is used is replaced, and nothing is missed", async () => {
  let asked = 0;
  // good for a second, if it were not for the leeway of 30 s
  const short = () => dev.token("ann", { exp: Math.floor(Date.now() / 1000) - 28 });
  const client = connect(dev.urls[0], { token: () => (asked++ ? dev.token("ann") : short()), backoff: [10, 20] });
  const room = client.room("ending", { after: 0 });
  await room.publish(0);
  await until(() => asked >= 2, "another token");
  await room.publish(1);
  assert.deepEqual((await take(room, 2)).map(message => message.data), [0, 1]);
  client.close();
});

test("an anonymous user stays who it is, so that what it sends again is stored once", async () => {
  const wire = await Wire.to(dev.urls[0]);
  const client = connect(wire.url, { backoff: [1, 10] });
  const users = new Set();
  client.on("connected", ({ welcome }) => users.add(welcome.user));
  await client.publish("anonymous", 0);
  for (let n = 1; n < 20; n++) {
    const stored = client.publish("anonymous", n);
    wire.cut(100);
    assert.equal((await stored).seq, n + 1);
  }
  assert.equal(users.size, 1);
  assert.match([...users][0], /^anon-/);
  client.close();
  wire.stop();
});

test("what nobody can reach is dialled until it is there, and close ends that", async () => {
  const client = connect("ws://127.0.0.1:1/ws", { backoff: [1, 5] });
  let attempts = 0;
  client.on("reconnecting", () => attempts++);
  const outcome = assert.rejects(client.publish("r", 1), { code: "closed" });
  await until(() => attempts > 5, "it dials");
  client.close();
  await outcome;
  await assert.rejects(client.publish("r", 1), { code: "closed" });
});

test("a room that may not be read says so", async () => {
  const token = dev.token("eve", { grants: { sub: ["public"], pub: [] } });
  const client = connect(dev.urls[0], { token });
  const refused = new Promise(resolve => client.room("secret").on("unsubscribed", resolve));
  assert.equal((await refused).error.code, "forbidden");
  await assert.rejects(client.publish("public", 1), { code: "forbidden" });
  client.close();
});
