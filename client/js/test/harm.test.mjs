// Under cuts and rolls nothing is lost, doubled or reordered. Says how long the longest silence was.
import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../dist/node.js";
import { assertWhole, startDev, until, Wire } from "./kit.mjs";

const CLIENTS = 20, CUTS = 1_000;
const READERS = 200, ROOMS = 20, TICK_MS = 100;

test(`${CUTS.toLocaleString("en")} reconnects under random cuts`, async t => {
  const dev = await startDev(2);
  t.after(() => dev.stop());
  const wires = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => Wire.to(dev.urls[n % 2])));
  let reconnects = 0, isOver = false, published = 0;
  const seen = wires.map(() => []), clients = wires.map((wire, n) => {
    const client = connect(wire.url, { token: dev.token(`user-${n}`), backoff: [1, 20] });
    client.on("closed", () => reconnects++);
    const room = client.room("cuts", { after: 0 });
    room.on("message", message => seen[n].push(message));
    for (const wrong of ["skipped", "gap", "unsubscribed"]) room.on(wrong, event => assert.fail(JSON.stringify(event)));
    room.on("resumed", event => assert.ok(event.recovered));
    return client;
  });
  t.after(() => {
    clients.forEach(client => client.close());
    wires.forEach(wire => wire.stop());
  });
  const writing = clients.map(async client => {
    for (let n = 0; !isOver; n++) {
      published++;
      await client.publish("cuts", n);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  });
  while (reconnects < CUTS) {
    const wire = wires[Math.floor(Math.random() * CLIENTS)];
    wire.cut(2_000);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
  isOver = true;
  await Promise.all(writing);
  await until(() => seen.every(messages => messages.length >= published), () => `${published}: ${seen.map(one => one.length)}`);
  for (const messages of seen) assertWhole(messages, published);
  t.diagnostic(`${reconnects} reconnects, ${published} publishes, each seen once and in order by ${CLIENTS} clients`);
});

test(`a roll of all gateways under ${READERS} clients`, async t => {
  const dev = await startDev(2);
  t.after(() => dev.stop());
  const rooms = Array.from({ length: ROOMS }, (_, n) => `roll-${n}`);
  const sent = rooms.map(() => 0), readers = [];
  let closes = 0, moves = 0, longest = 0;
  for (let n = 0; n < READERS; n++) {
    const urls = n % 2 ? dev.urls : [...dev.urls].reverse();
    const client = connect(urls[0], { token: dev.token(`reader-${n}`), or: urls.slice(1) });
    const reader = { client, room: n % ROOMS, messages: [], last: undefined };
    client.on("closed", () => closes++);
    client.on("connected", ({ moved }) => { if (moved) moves++; });
    const room = client.room(rooms[reader.room], { after: 0 });
    room.on("message", message => {
      const now = performance.now();
      longest = Math.max(longest, now - (reader.last ?? now));
      reader.last = now;
      reader.messages.push(message);
    });
    for (const wrong of ["skipped", "gap", "unsubscribed"]) room.on(wrong, event => assert.fail(JSON.stringify(event)));
    readers.push(reader);
  }
  t.after(() => readers.forEach(reader => reader.client.close()));
  let isOver = false;
  // the first reader of each room writes
  const writing = rooms.map(async (room, n) => {
    const outcomes = [];
    while (!isOver) {
      outcomes.push(readers[n].client.publish(room, sent[n]++));
      await new Promise(resolve => setTimeout(resolve, TICK_MS));
    }
    return Promise.all(outcomes);
  });
  await until(() => readers.every(reader => reader.messages.length > 5), "everybody reads");
  longest = 0;
  for (const name of dev.names) {
    await dev.restart(name);
    const seen = readers.map(reader => reader.messages.length);
    await until(() => readers.every((reader, n) => reader.messages.length > seen[n] + 5), "everybody reads again");
  }
  isOver = true;
  await Promise.all(writing);
  await until(() => readers.every(reader => reader.messages.length >= sent[reader.room]), "everything has come");
  for (const reader of readers) assertWhole(reader.messages, sent[reader.room]);
  t.diagnostic(`${moves} moves, ${closes} closes before a client had moved, longest silence ${Math.round(longest)} ms at a message every ${TICK_MS} ms`);
  // A gateway of sluice dev gives its clients less than a second: how many move in it is told, not judged.
  assert.ok(moves > 0, "some have moved before their gateway ended");
  });
