/** What the page does: it is a client of the gateways, and shows what the services say of themselves. */
"use strict";
const $ = id => document.getElementById(id);
const LOG_MAX = 200, STATE_MS = 500, TICK_MS = 100, OUTBOX_MAX = 500, WELCOME_MS = 5000, OLD_MS = 5000;
const LATE_MS = 500, EARLIER = 20;

/** A client as WIRE.md asks for: resumes with its position, sends again what has no answer, and moves before it must. */
class Client {
  gateways = [];                  // [{name, ws, ready}], from the state below
  room = null; after = null; epoch = null;
  user = null;
  outbox = new Map();             // key → {text, at, on: the connection it was first sent on}, in the order published
  active = null; next = null; old = null;
  failures = 0; turn = 0;
  down = 0; downFrom = null;      // ms without a connection before, and since when there is none now
  count = { received: 0, missed: 0, twice: 0, skipped: 0, refused: 0, moves: 0, reconnects: 0, attached: 0 };
  token = sessionStorage.getItem("token");

  constructor(show) { this.show = show; }

  join(room, from) {
    Object.assign(this, { room, after: from, epoch: null, oldest: null });
    if (this.active) this.subscribe(this.active);
  }

  leave() {
    if (this.active) this.active.send({ unsub: this.room });
    this.room = null;
  }

  publish(data) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const key = [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("");
    const text = JSON.stringify({ pub: this.room, data, key, id: key });
    this.outbox.set(key, { text, at: performance.now(), on: this.active });
    if (this.active) this.active.socket.send(text);
  }

  /** Publishes that wait longer for their answer than one usually takes. */
  unanswered() {
    const before = performance.now() - LATE_MS;
    return [...this.outbox.values()].filter(entry => entry.at < before).length;
  }

  /** Changes from one connection to another, each counted once whichever way it came. */
  changes() { return Math.max(0, this.count.attached - 1); }

  /** How long there was no connection, ms in all. */
  without() { return this.down + (this.downFrom === null ? 0 : performance.now() - this.downFrom); }

  /** Asks for messages from before those that are shown. */
  earlier() {
    if (this.active && this.room && this.oldest > 1) {
      this.active.send({ history: this.room, before: this.oldest, limit: EARLIER, id: "earlier" });
    }
  }

  /** Dials a gateway, another one than `but` where there is another. */
  dial(but) {
    if (this.next) return;
    const ready = this.gateways.filter(gateway => gateway.ready);
    const known = ready.length ? ready : this.gateways;
    const others = known.filter(gateway => gateway.ws !== but);
    const from = others.length ? others : known;
    if (!from.length) return this.later(500);
    const gateway = from[this.turn++ % from.length];
    const protocols = ["sluice.v1.json", ...(this.token ? ["bearer." + this.token] : [])];
    const socket = new WebSocket(gateway.ws, protocols);
    const connection = { socket, gateway, expect: null, live: false, leaves: false, bye: null,
                         send: frame => socket.send(JSON.stringify(frame)) };
    this.next = connection;
    const patience = setTimeout(() => socket.close(), WELCOME_MS);
    socket.onmessage = event => {
      clearTimeout(patience);
      this.frame(connection, JSON.parse(event.data));
    };
    socket.onclose = event => {
      clearTimeout(patience);
      this.closed(connection, event.code);
    };
  }

  later(ms, but) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dial(but), ms);
  }

  /** A new connection becomes the active one; the former stays for the answers it may still bring. */
  attach(connection) {
    this.failures = 0;
    this.down = this.without();
    this.downFrom = null;
    this.count.attached++;
    this.next = null;
    this.old = this.active;
    this.active = connection;
    if (this.old) {
      this.count.moves++;
      const old = this.old;
      setTimeout(() => this.forget(old), OLD_MS);
    }
    if (this.room) this.subscribe(connection);
    for (const entry of this.outbox.values()) {   // in order, before anything new
      connection.socket.send(entry.text);
      entry.on ??= connection;
    }
    this.show.note(`connected to ${connection.gateway.name}`, "good");
  }

  subscribe(connection) {
    const position = this.after === null ? {} : { after: this.after, ...(this.epoch && { epoch: this.epoch }) };
    connection.live = false;
    connection.send({ sub: this.room, ...position, id: "sub" });
  }

  frame(connection, frame) {
    if (frame.welcome) this.welcome(connection, frame.welcome);
    else if (frame.msg) this.message(connection, frame);
    else if (frame.ok === "sub") this.subscribed(connection, frame);
    else if (frame.ok === "pub") this.answered(frame.id);
    else if (frame.ok === "history") this.page(frame);
    else if (frame.skipped) this.skipped(connection, frame);
    else if (frame.drain) this.drain(connection, frame.drain);
    else if (frame.bye) connection.bye = frame.bye;
    else if (frame.error) this.error(frame);
    this.settle();
    this.show.client(this);
  }

  welcome(connection, welcome) {
    this.user = welcome.user;
    if (welcome.token) sessionStorage.setItem("token", this.token = welcome.token);
    if (connection === this.next) this.attach(connection);
  }

  subscribed(connection, frame) {
    if (frame.room !== this.room) return;
    if (!frame.recovered) this.show.note(`not recovered: begins again after ${frame.after}`, "bad");
    if (this.after === null || !frame.recovered) this.after = frame.after;
    if (this.oldest === null) {
      this.oldest = frame.after + 1;
      this.earlier();
    }
    Object.assign(connection, { live: true, expect: frame.after + 1 });
    this.epoch = frame.epoch;
  }

  page({ room, messages }) {
    if (room !== this.room || !messages.length || messages[0].seq >= this.oldest) return;
    const fresh = messages.filter(message => message.seq < this.oldest);
    this.oldest = messages[0].seq;
    this.show.earlier(fresh, this.user);
  }

  message(connection, frame) {
    if (frame.msg !== this.room || connection.expect === null) return;
    if (frame.seq < connection.expect) this.count.twice++;
    connection.expect = frame.seq + 1;
    if (frame.seq <= this.after) return;          // the other connection had it already
    this.count.missed += frame.seq - this.after - 1;
    this.count.received++;
    this.after = frame.seq;
    this.show.message(frame, this.user);
  }

  skipped(connection, { skipped, from, to }) {
    if (skipped !== this.room) return;
    connection.expect = to + 1;
    if (to <= this.after) return;
    this.count.skipped += to - this.after;
    this.after = to;
    this.show.note(`${from}…${to} are gone for good`, "bad");
  }

  answered(key) { this.outbox.delete(key); }

  error({ error, id }) {
    if (this.outbox.has(id)) {
      if (error.retry) return;                    // it stays, and is sent again
      this.outbox.delete(id);
      this.count.refused++;
    }
    this.show.note(`${error.code}: ${error.message}`, "bad");
  }

  drain(connection, drain) {
    this.show.note(`${connection.gateway.name} drains (${drain.reason})`, "busy");
    connection.gateway.ready = false;
    connection.leaves = true;
    if (connection === this.active) this.later(Math.random() * drain.reconnect_ms, connection.gateway.ws);
  }

  closed(connection, code) {
    if (connection === this.old) this.old = null;
    if (connection === this.next) this.next = null;
    if (connection === this.active) {
      this.active = null;
      this.downFrom = performance.now();
      this.count.reconnects++;
      this.show.note(`${connection.gateway.name} closed (${code})`, "busy");
    }
    if ([4501, 4503].includes(connection.bye?.code)) sessionStorage.removeItem("token"), this.token = null;
    if ((!this.active || this.active.leaves) && !this.next) {
      const backoff = Math.min(100 * 2 ** this.failures++, 2000);
      const asked = connection.bye?.reconnect_ms;
      this.later(Math.random() * (asked ?? backoff), connection.gateway.ws);
    }
    this.show.client(this);
  }

  /** Leaves the former connection when nothing more is expected of it. */
  settle() {
    const waits = [...this.outbox.values()].some(entry => entry.on === this.old);
    if (this.old && !waits && (this.active?.live || !this.room)) this.forget(this.old);
  }

  forget(old) {
    if (this.old === old) this.old = null;
    old.socket.close(1000);
  }
}

/** What people see. */
const show = {
  last: null, pause: null, ticking: null,
  asked: null, downs: 0,          // when the first publish since the last message was made, and `without` at that message
  item(seq, from, what, tone) {
    const item = document.createElement("li");
    for (const [name, text] of [["seq", seq], ["from " + (from === "you" ? "me" : ""), from], ["what " + (tone ?? ""), what]]) {
      item.append(Object.assign(document.createElement("span"), { className: name, textContent: text, title: text }));
    }
    return item;
  },
  line(...parts) {
    const log = $("log"), end = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(this.item(...parts));
    while (log.children.length > LOG_MAX) log.firstChild.remove();
    if (end) log.scrollTop = log.scrollHeight;
  },
  of(frame, me) {
    const text = typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data);
    return [frame.seq, frame.from === me ? "you" : frame.from, text];
  },
  note(text, tone) { this.line("·", "", text, tone); },
  message(frame, me) {
    const pause = this.lasting();
    if (pause && pause.ms > (this.pause?.ms ?? 0)) this.pause = pause;
    Object.assign(this, { last: performance.now(), asked: null, downs: client.without() });
    this.line(...this.of(frame, me));
  },
  /** What was there before: above the rest, and what people read stays where it is. */
  earlier(messages, me) {
    const log = $("log"), below = log.scrollHeight - log.scrollTop;
    const items = messages.map(frame => this.item(...this.of(frame, me), "earlier"));
    log.prepend(...items);
    log.scrollTop = log.scrollHeight - below;
  },
  /** The pause that lasts, from when the next message could be expected: a browser ticks slowly behind other windows. */
  lasting() {
    if (this.ticking === null || this.asked === null || this.last === null || this.last < this.ticking) return null;
    const from = Math.max(this.last, this.asked - TICK_MS);
    return { ms: performance.now() - from, without: client.without() - this.downs };
  },
  /** The longest pause that has ended, or in its place one that lasts and is longer already: never one beside the other. */
  pauses() {
    const lasting = this.lasting(), lasts = lasting?.ms > Math.max(this.pause?.ms ?? 0, LATE_MS);
    const shown = lasts ? lasting : this.pause;
    const time = ms => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
    $("pause-is").textContent = lasts ? "pause so far" : "longest pause";
    $("pause").className = lasts ? "busy" : "";
    $("pause").textContent = shown ? time(shown.ms) : "–";
    $("without").textContent = shown?.without >= 1 ? `${time(shown.without)} of it without a gateway` : "";
  },
  client(client) {
    const { active, room, count, oldest } = client, unanswered = client.unanswered();
    $("link").textContent = active ? `connected to ${active.gateway.name}` : "reconnecting …";
    $("link").className = active ? "good" : "busy";
    $("link").dataset.gateway = active ? active.gateway.name : "";
    $("joining").textContent = room ? "Leave" : "Join";
    $("room").disabled = Boolean(room);
    $("more").hidden = !(room && oldest > 1);
    for (const name of ["received", "missed", "twice"]) $(name).textContent = count[name].toLocaleString("en");
    $("moves").textContent = client.changes().toLocaleString("en");
    $("unanswered").textContent = unanswered;
    this.pauses();
    const wrong = count.missed + count.twice + count.skipped;
    const refused = count.refused ? `, ${count.refused} publishes refused` : "";
    const changes = client.changes();
    const across = changes ? `, across ${changes} move${changes > 1 ? "s" : ""}` : "";
    const [tone, verdict] =
      wrong ? ["bad", `${wrong} messages missed, twice or gone`] :
      unanswered ? ["busy", `${unanswered} publish${unanswered > 1 ? "es wait" : " waits"} for an answer`] :
      !active && room && count.attached ? ["busy", "no gateway: what comes meanwhile is caught up with"] :
      !count.received ? ["", ""] :
      [refused ? "busy" : "good", `every message once and in order${across}${refused}`];
    $("verdict").className = tone;
    $("verdict").textContent = verdict;
  },
};

const client = new Client(show);

$("join").onsubmit = event => {
  event.preventDefault();
  if (client.room) client.leave();
  else {
    $("log").replaceChildren();                   // of another room
    client.join($("room").value, null);
  }
  show.last = null;
  show.client(client);
};
$("say").onsubmit = event => {
  event.preventDefault();
  if (!client.room || !$("text").value) return;
  client.publish($("text").value);
  $("text").value = "";
  show.client(client);
};
$("earlier").onclick = () => client.earlier();
setInterval(() => show.client(client), TICK_MS);  // what waits gets older
let ticks = 0;
$("tick").onchange = () => {
  show.ticking = $("tick").checked ? performance.now() : null;
  show.pause = null;
};
setInterval(() => {
  if (!$("tick").checked || !client.room || client.outbox.size >= OUTBOX_MAX) return;
  client.publish({ tick: ++ticks });
  show.asked ??= performance.now();
}, TICK_MS);

/** The services, twice a second. */
const services = {
  rows: new Map(), all: [],
  async look() {
    try {
      const answer = await fetch("/dev/state", { signal: AbortSignal.timeout(2000) });
      this.all = (await answer.json()).services;
      this.all.forEach(service => this.row(service));
      const gateways = this.all.filter(service => service.ws);
      const known = new Map(client.gateways.map(gateway => [gateway.ws, gateway]));
      client.gateways = gateways.map(({ name, ws, ready }) => Object.assign(known.get(ws) ?? {}, { name, ws, ready }));
      if (!client.active && !client.next && !client.timer) client.dial();
    } catch {
      this.rows.forEach(row => this.stage(row, "no answer", "bad"));
    }
    setTimeout(() => this.look(), STATE_MS);
  },
  row(service) {
    const row = this.rows.get(service.name) ?? this.add(service);
    this.stage(row, service.stage ?? "starting", service.ready ? "good" : "busy");
    row.connections.textContent = service.connections ?? "";
    row.life.textContent = service.life;
    row.roll.disabled = !service.ready;
  },
  stage(row, text, tone) { Object.assign(row.stage, { textContent: text, className: tone }); },
  add({ name, admin }) {
    const cell = (className, ...children) => {
      const cell = Object.assign(document.createElement("td"), { className });
      cell.append(...children);
      return cell;
    };
    const link = Object.assign(document.createElement("button"), { className: "link", textContent: name, id: "status-" + name });
    link.onclick = () => this.status(name, admin);
    const roll = Object.assign(document.createElement("button"), { textContent: "Roll", id: "roll-" + name });
    roll.onclick = () => this.roll(name);
    const row = { stage: cell(""), connections: cell("n"), life: cell("n"), roll };
    const line = document.createElement("tr");
    line.append(cell("", link), row.stage, row.connections, row.life, cell("n", roll));
    $("services").append(line);
    this.rows.set(name, row);
    return row;
  },
  /** What a service says of itself, as rows. */
  async status(name, admin) {
    $("of").textContent = `Status of ${name}`;
    $("raw").href = admin + "/status";
    $("metrics").href = admin + "/metrics";
    $("facts").replaceChildren();
    if (!$("status").open) $("status").showModal();
    const answer = await fetch("/dev/status/" + name).catch(() => null);
    const said = answer?.ok ? await answer.json() : { status: "no answer: it may be between two lives" };
    const rows = [];
    const add = (label, value) => {
      if (Array.isArray(value) && value.some(one => typeof one === "object")) {
        value.forEach((one, n) => add(`${label} ${one.name ?? one.stage ?? n + 1}`, one));
      } else if (value !== null && typeof value === "object" && !Array.isArray(value)) {
        Object.entries(value).forEach(([key, inner]) => add(label ? `${label}: ${key}` : key, inner));
      } else {
        const row = document.createElement("tr");
        const time = label.endsWith("since_ms") && typeof value === "number";
        const shown = time ? new Date(value).toLocaleString() : Array.isArray(value) ? value.join(", ") : value;
        const name = time ? label.replace("since_ms", "since") : label;
        for (const text of [name.replaceAll("_", " "), shown === null || shown === "" ? "–" : shown]) {
          row.append(Object.assign(document.createElement("td"), { textContent: text }));
        }
        rows.push(row);
      }
    };
    add("", said);
    $("facts").replaceChildren(...rows);
  },
  async roll(name) {
    show.note(`${name} is told to stop and start again`, "quiet");
    const answer = await fetch("/dev/restart/" + name, { method: "POST", headers: { "x-sluice-dev": "1" } });
    const said = await answer.json();
    show.note(answer.ok ? `${name} is back after ${said.elapsed_ms} ms` : said.error, answer.ok ? "good" : "bad");
  },
};
$("roll-all").onclick = async () => {
  $("roll-all").disabled = true;
  for (const { name, ws } of services.all) if (ws) await services.roll(name);
  $("roll-all").disabled = false;
};
client.join("news", null);
show.client(client);
services.look();
