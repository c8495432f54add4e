// Whatever happens in whatever order: what a machine sends and tells keeps the promises.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Machine } from "../dist/node.js";

/** Numbers that look like chance and come again with the same seed. */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A world of one room: gateways that store, answer, deliver, forget, drain and die as chance wants. */
class World {
  stored = [];              // keys in the order of the room
  conns = new Map();        // what each connection was told and asked
  timers = new Map();
  seen = [];
  outcomes = [];
  submitted = [];
  lastActive = 0;

  constructor(seed) {
    this.random = chance(seed);
    this.machine = new Machine({ urls: ["a", "b"], random: this.random, now: () => 0 });
    this.machine.subscribe("r", { after: 0 }, false);
    this.machine.start();
    this.settle();
  }

  pick(list) { return list[Math.floor(this.random() * list.length)]; }

  settle() {
    for (;;) {
      const action = this.machine.out.shift();
      if (action?.do === "timer") action.ms === null ? this.timers.delete(action.name) : this.timers.set(action.name, action.ms);
      else if (action?.do === "dial") this.conns.set(action.conn, { frames: [], fence: false, stands: false, at: null });
      else if (action?.do === "send") this.conns.get(action.conn)?.frames.push(JSON.parse(action.text));
      else if (action?.do === "close") this.conns.delete(action.conn);
      else if (action?.do === "settle") this.outcomes.push(action.outcome);
      else if (action?.do === "tell") {
        const { event } = action;
        if (event.type === "message") this.seen.push(event.seq);
        assert.ok(!["gap", "ended", "unsubscribed", "skipped"].includes(event.type), JSON.stringify(event));
        if (event.type === "resumed") assert.equal(event.after, this.seen.length);
      } else if (!action) {
        const text = this.machine.nextPublish();
        if (text === undefined) return;
        const conn = this.conns.get(this.machine.connection);
        conn.frames.push(JSON.parse(text));
        this.inOrder(conn, JSON.parse(text));
      }
    }
  }

  /** On each connection what was submitted earlier is sent earlier. */
  inOrder(conn, { id }) {
    assert.ok(id > (conn.lastPublish ?? 0), "publishes are sent in order");
    conn.lastPublish = id;
  }

  say(id, frame) {
    this.machine.frame(id, JSON.stringify(frame));
    this.settle();
  }

  /** The gateway reads one frame, and may keep its answer to itself. */
  serve([id, conn]) {
    const frame = conn.frames.shift();
    if (!frame) return;
    const answers = this.random() < 0.8;
    if (frame.sub) {
      if (this.random() < 0.1) return this.say(id, { error: { code: "unavailable", message: "m", retry: true }, id: frame.id });
      conn.at = frame.after;
      return this.say(id, { ok: "sub", room: "r", after: frame.after, head: this.stored.length, epoch: "e", recovered: true, id: frame.id });
    }
    if (!frame.pub) return;
    if (conn.fence || this.random() < 0.1) {
      conn.fence = true;
      return this.say(id, { error: { code: "unavailable", message: "m", retry: true }, id: frame.id });
    }
    let seq = this.stored.indexOf(frame.key) + 1;
    if (!seq) seq = this.stored.push(frame.key);
    if (answers) this.say(id, { ok: "pub", room: "r", seq, key: frame.key, id: frame.id });
  }

  step() {
    const open = [...this.conns], what = this.random();
    const one = open.length ? this.pick(open) : undefined;
    if (what < 0.15) {
      const key = `k${this.submitted.length}`;
      this.submitted.push({ key, id: this.machine.publish({ body: JSON.stringify({ pub: "r", key, data: 1 }) }) });
      this.settle();
    } else if (what < 0.3 && this.timers.size) {
      const name = this.pick([...this.timers.keys()].filter(name => name !== "quiet"));
      if (!name) return;
      this.timers.delete(name);
      this.machine.timer(name);
      this.settle();
    } else if (!one) {
      return;
    } else if (what < 0.4 && !one[1].stands) {
      one[1].stands = true;
      this.say(one[0], { welcome: { user: "ann", ping_s: 25, epoch: "e" } });
    } else if (what < 0.43) {
      this.say(one[0], { drain: { reason: "restart", within_ms: 9, reconnect_ms: 9 } });
    } else if (what < 0.48) {
      this.conns.delete(one[0]);
      this.machine.closed(one[0], this.pick([undefined, 1012, 4001]), "cut");
      this.settle();
    } else if (what < 0.7) {
      this.serve(one);
    } else if (one[1].at !== null && one[1].at < this.stored.length) {
      one[1].at++;
      this.say(one[0], { msg: "r", seq: one[1].at, from: "ann", at: 1, data: 1 });
    }
  }

  /** Everything is well from now on. */
  calm() {
    const random = this.random;
    for (let n = 0; n < 20_000; n++) {
      if (this.seen.length === this.submitted.length && this.outcomes.length === this.submitted.length) return;
      const [id, conn] = [...this.conns].at(-1) ?? [];
      this.random = () => 0.5;
      if (!conn || conn.fence || (conn.stands && this.machine.connection !== id)) {
        for (const [old] of [...this.conns]) this.machine.closed(old, undefined, "calm");
        this.conns.clear();
        this.settle();
        if (!this.timers.delete("dial")) continue;
        this.machine.timer("dial");
        this.settle();
      } else if (!conn.stands) {
        conn.stands = true;
        this.say(id, { welcome: { user: "ann", ping_s: 25, epoch: "e" } });
      } else if (conn.frames.length) this.serve([id, conn]);
      else if (conn.at < this.stored.length) this.say(id, { msg: "r", seq: ++conn.at, from: "ann", at: 1, data: 1 });
      else { // an answer was kept back: only another connection brings it
        this.conns.delete(id);
        this.machine.closed(id, undefined, "calm");
        this.settle();
      }
      this.random = random;
    }
    assert.fail("it never gets well");
  }
}

test("2,000 lives: nothing is lost, doubled or reordered, and every publish is answered once", () => {
  for (let seed = 1; seed <= 2000; seed++) {
    try {
      const world = new World(seed);
      for (let n = 0; n < 300; n++) world.step();
      world.calm();
      assert.deepEqual(world.seen, world.stored.map((_, n) => n + 1), "each position once, in order");
      assert.deepEqual(world.stored, world.submitted.map(one => one.key), "stored once, in the order of submission");
      assert.deepEqual(world.outcomes.map(one => one.id).sort((a, b) => a - b), world.submitted.map(one => one.id));
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
  }
});
