/**
 * The client of the page: the SDK as any program uses it. What was missed and what came twice is counted by the
 * positions of messages alone, so that a mistake of the SDK would be counted too.
 */
import { connect } from "/sluice.js";

const LATE_MS = 500, EARLIER = 20, AGAIN_MS = 1000;

export class CountingClient {
  sdk = null;
  room = null;
  at = null;                      // the gateway's name; null: no connection
  seq = null; oldest = null;      // the last message that came, and the first of those that are shown
  waiting = new Set();            // when each publish without an answer was made
  down = 0; downFrom = null;      // ms without a connection before, and since when there is none now
  count = { received: 0, missed: 0, twice: 0, skipped: 0, gaps: 0, refused: 0, moves: 0, reconnects: 0, attached: 0 };

  constructor(show) { this.show = show; }

  /** Gateways keep their addresses over a restart, so that this is done once. */
  connect(gateways) {
    const names = new Map(gateways.map(({ ws, name }) => [ws, name]));
    const [first, ...or] = names.keys();
    const sdk = this.sdk = connect(first, { or, token: sessionStorage.token });
    sdk.on("token", ({ token }) => { sessionStorage.token = token; });
    sdk.on("connected", ({ url, moved }) => this.connected(names.get(url), moved));
    sdk.on("drain", ({ reason }) => this.show.note(`${this.at} drains (${reason})`, "busy"));
    sdk.on("closed", ({ code, reason }) => this.closed(code ?? reason));
    sdk.on("error", ({ error }) => this.show.note(`${error.code}: ${error.message}`, "bad"));
    sdk.on("ended", ({ reason }) => {
      this.show.note(`ended: ${reason}`, "bad");
      // This token lets nobody in any more. Whoever looks at the page goes on as somebody else.
      delete sessionStorage.token;
      const { name, position } = this.room ?? {};
      setTimeout(() => {
        this.connect(gateways);
        if (name) this.enter(name, position);
      }, AGAIN_MS);
    });
  }

  connected(name, moved) {
    this.down = this.without();
    this.downFrom = null;
    this.at = name;
    this.count.attached++;
    if (moved) this.count.moves++;
    this.show.note(`connected to ${name}`, "good");
  }

  closed(why) {
    this.show.note(`${this.at} closed (${why})`, "busy");
    this.at = null;
    this.downFrom = performance.now();
    this.count.reconnects++;
  }

  join(name) {
    this.seq = this.oldest = null;
    this.enter(name);
  }

  enter(name, position) {
    const room = this.room = this.sdk.room(name, position);
    room.on("subscribed", event => this.begins(event));
    room.on("resumed", event => this.begins(event));
    room.on("skipped", ({ from, to }) => this.skipped(from, to));
    room.on("gap", ({ expected, seq }) => {
      this.count.gaps++;
      this.show.note(`${seq} came in the place of ${expected}`, "bad");
    });
    room.on("unsubscribed", ({ error }) => {
      this.show.note(`${error.code}: ${error.message}`, "bad");
      this.room = null;
    });
    room.on("message", message => this.message(message));
  }

  leave() {
    this.room.leave();
    this.room = null;
  }

  begins({ after, recovered }) {
    if (!recovered) this.show.note(`not recovered: begins again after ${after}`, "bad");
    if (this.seq === null || !recovered) this.seq = after;
    if (this.oldest !== null) return;
    this.oldest = after + 1;
    void this.earlier();
  }

  message(message) {
    if (message.seq <= this.seq) {
      this.count.twice++;
      return;
    }
    this.count.missed += message.seq - this.seq - 1;
    this.count.received++;
    this.seq = message.seq;
    this.show.message(message, this.sdk.user);
  }

  skipped(from, to) {
    this.count.skipped += to - this.seq;
    this.seq = to;
    this.show.note(`${from}…${to} are gone for good`, "bad");
  }

  async publish(data) {
    const one = { at: performance.now() };
    this.waiting.add(one);
    try {
      await this.room.publish(data);
    } catch ({ code, message }) {
      this.count.refused++;
      this.show.note(`${code}: ${message}`, "bad");
    }
    this.waiting.delete(one);
  }

  /** Shows messages from before those that are shown. */
  async earlier() {
    const { room, oldest } = this;
    if (!room || oldest <= 1) return;
    // One that cannot be answered now is asked again by the button.
    const { messages } = await room.history({ before: oldest, limit: EARLIER }).catch(() => ({ messages: [] }));
    if (room !== this.room || oldest !== this.oldest || !messages.length) return;
    this.oldest = messages[0].seq;
    this.show.earlier(messages, this.sdk.user);
  }

  /** Publishes that wait longer for their answer than one usually takes. */
  late() {
    const before = performance.now() - LATE_MS;
    return [...this.waiting].filter(({ at }) => at < before).length;
  }

  /** Changes from one connection to another, each counted once whichever way it came. */
  changes() { return Math.max(0, this.count.attached - 1); }

  /** How long there was no connection, ms in all. */
  without() { return this.down + (this.downFrom === null ? 0 : performance.now() - this.downFrom); }
}
