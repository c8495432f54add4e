// The machine is held to client/vectors, with the least, the middle and the most that chance can say.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { Machine } from "../dist/node.js";

const folder = new URL("../../vectors/", import.meta.url);
const OF_CALLS = new Set(["stored", "scheduled", "cancelled", "history", "refused"]);
const OPTIONAL = new Set(["connected", "drain", "bye", "ended", "reconnecting", "token"]);
const EPOCH = "000000000000001f";

/** A scripted gateway and a program around one machine, with timers that go off when the script says so. */
class Stage {
  calls = [];
  events = [];
  dials = [];
  heard = new Map();
  ends = new Map();
  timers = new Map();
  ids = {};
  asked = new Map();
  tokens = 0;
  /** So many questions for a token fail. */
  failing = 0;

  constructor(vector, chance) {
    this.urls = Array.from({ length: vector.gateways ?? 1 }, (_, n) => `ws://gateway-${n}/ws`);
    this.renewable = vector.needs !== undefined;
    this.optional = new Set([...OPTIONAL, ...(vector.needs === "renewal" ? ["error"] : [])]);
    this.token = vector.token === undefined ? "t" : vector.token;
    this.now = 1e12;
    this.machine = new Machine({ urls: this.urls, random: () => chance, now: () => this.now, renewable: this.renewable });
    this.machine.start();
    this.settle();
  }

  nextToken() { return ++this.tokens === 1 ? "t" : `t${this.tokens}`; }

  settle() {
    for (;;) {
      const action = this.machine.out.shift();
      if (action) this.act(action);
      else {
        const text = this.machine.nextPublish();
        if (text === undefined) return;
        this.hears(this.machine.connection, text);
      }
    }
  }

  hears(conn, text) { this.heard.set(conn, [...(this.heard.get(conn) ?? []), JSON.parse(text)]); }

  act(action) {
    if (action.do === "timer") action.ms === null ? this.timers.delete(action.name) : this.timers.set(action.name, action.ms);
    else if (action.do === "dial") {
      this.dials.push({ ...action, token: this.renewable ? this.nextToken() : this.token ?? undefined });
    } else if (action.do === "send") this.hears(action.conn, action.text);
    else if (action.do === "close") this.ends.set(action.conn, action.code);
    else if (action.do === "renew") {
      if (this.failing && this.failing--) this.machine.noToken(action.n);
      else this.machine.refresh(action.n, this.nextToken());
    }
    else if (action.do === "settle") this.calls.push(this.outcome(action.outcome));
    else this.tell(action.event);
  }

  tell({ error, ...event }) {
    if (event.type === "token") this.token = event.token;
    this.events.push({ ...event, ...(error && { code: error.code }) });
  }

  outcome({ id, frame, error }) {
    const key = this.asked.get(id);
    if (error) return { type: "refused", key, code: error.code };
    if (frame.messages) {
      const more = frame.more ? { more: frame.before ? { before: frame.before } : { after: frame.after } } : {};
      return { type: "history", seqs: frame.messages.map(message => message.seq), ...more };
    }
    if (frame.ok === "cancel") return { type: "cancelled", key, cancelled: frame.cancelled };
    return frame.due === undefined ? { type: "stored", key, seq: frame.seq } : { type: "scheduled", key, due: frame.due };
  }

  do({ do: what, room, key, data, presence, ...rest }) {
    const { machine, asked } = this;
    const body = { publish: { pub: room, key, data }, schedule: { pub: room, key, ...rest, data }, cancel: { cancel: room, key } };
    if (what === "subscribe") machine.subscribe(room, rest, presence === true);
    else if (what === "unsubscribe") machine.unsubscribe(room);
    else if (what === "history") machine.ask({ history: room, ...rest });
    else if (what === "close") machine.close();
    else asked.set(machine.publish({ body: JSON.stringify(body[what]) }), key);
  }

  fire(name) {
    assert.ok(this.timers.delete(name), `the timer ${name} runs`);
    this.machine.timer(name);
    this.settle();
  }

  dial(conn, at = 0) {
    if (!this.dials.length) {
      this.now += this.timers.get("dial") ?? 0;
      this.fire("dial");
    }
    const dialled = this.dials.shift();
    assert.equal(dialled?.conn, conn);
    assert.equal(dialled.url, this.urls[at]);
    return dialled;
  }

  step(step) {
    const { machine } = this;
    const [[verb, n]] = Object.entries(step);
    if (verb === "dial") {
      const { token } = this.dial(n, step.at);
      if (step.token) assert.equal(token, step.token);
      machine.opened(n, token !== undefined);
    } else if (verb === "refuse") {
      this.dial(n, step.at);
      machine.closed(n, undefined, `HTTP ${step.status}`, step.retry_after_s && step.retry_after_s * 1000);
    } else if (verb === "welcome") {
      const token = step.token && { token: step.token };
      machine.frame(n, JSON.stringify({ welcome: { user: "ann", epoch: EPOCH, ping_s: step.ping_s ?? 25, ...token } }));
    } else if (verb === "say") {
      machine.frame(n, JSON.stringify(fill(step.frame, this.ids)));
    } else if (verb === "hear") {
      const frame = this.heard.get(n)?.shift();
      assert.ok(frame, `nothing is heard on ${n}`);
      for (const [key, value] of Object.entries(step.frame)) if (/^\$/.test(value)) this.ids[value] = frame[key];
      assert.deepEqual(frame, fill(step.frame, this.ids));
    } else if (verb === "close") machine.closed(n, step.code, "because");
    else if (verb === "closed") {
      assert.ok(this.ends.has(n), `${n} is closed`);
      if (step.code) assert.equal(this.ends.get(n), step.code);
    } else if (verb === "stands") assert.ok(!this.ends.has(n), `${n} is not closed`);
    else if (verb === "silence") {
      while (!this.ends.has(n)) this.fire("quiet");
      this.heard.delete(n); // questions whether anybody is there
    } else if (verb === "do") this.do(step);
    else if (verb === "pause") {
      const [least, most] = n;
      const is = this.timers.get("dial");
      assert.ok(is >= least && is <= most, `a pause of ${is} ms, not ${least} to ${most}`);
    } else if (verb === "again") {
      const [least, most] = n;
      const is = this.timers.get("renew");
      assert.ok(is >= least && is <= most, `again after ${is} ms, not ${least} to ${most}`);
      this.fire("renew");
    } else if (verb === "no_token") this.failing = n;
    else if (verb === "told") this.told(n);
    else assert.fail(`no step is called ${verb}`);
    this.settle();
  }

  told(wanted) {
    const queue = OF_CALLS.has(wanted.type) ? this.calls : this.events;
    while (queue.length && queue[0].type !== wanted.type && this.optional.has(queue[0].type)) queue.shift();
    const is = queue.shift();
    assert.ok(is, `nothing is told, but ${JSON.stringify(wanted)} was to be`);
    assert.deepEqual(Object.fromEntries(Object.keys(wanted).map(key => [key, is[key]])), wanted);
  }

  over() {
    const told = [...this.calls, ...this.events.filter(event => !this.optional.has(event.type))];
    assert.deepEqual(told, [], "nothing else is told");
    assert.deepEqual([...this.heard.values()].flat(), [], "nothing else is sent");
  }
}

function fill(frame, ids) {
  return Object.fromEntries(Object.entries(frame).map(([key, value]) => [key, ids[value] ?? value]));
}

for (const file of readdirSync(folder).filter(name => name.endsWith(".json"))) {
  const { vectors } = JSON.parse(readFileSync(new URL(file, folder)));
  describe(file, () => {
    for (const vector of vectors) {
      test(vector.name, () => {
        for (const chance of [0, 0.5, 1 - Number.EPSILON]) {
          const stage = new Stage(vector, chance);
          vector.steps.forEach((step, n) => {
            try {
              stage.step(step);
            } catch (error) {
              error.message = `step ${n + 1} ${JSON.stringify(step)}: ${error.message}`;
              throw error;
            }
          });
          stage.over();
        }
      });
    }
  });
}
