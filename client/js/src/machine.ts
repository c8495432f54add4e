/**
 * What a client must remember across connections, and what it does when something happens: the state table of
 * proto/WIRE.md. Pure: frames, ends and timers in, actions out. It never touches a socket, a clock or a promise.
 */
import { Backoff } from "./backoff.js";
import {
  FENCE_MS, GAP_MS, OLD_MS, PROBE_MS, RESEND_MS, TOKEN_AGAIN_MAX_MS, TOKEN_AGAIN_MS, TOKEN_MS, TOKEN_TRIES, WELCOME_MS,
} from "./defaults.js";
import { Rooms } from "./rooms.js";
import type { ClientEvent, Position, RoomEvent, Welcome, WireError } from "./types.js";

export type TimerName = "dial" | "welcome" | "quiet" | "fence" | "old" | "renew";

/** The outcome of a call, by its id. */
export type Outcome =
  | { type: "answer"; id: number; frame: any }
  | { type: "refused"; id: number; error: WireError };

export type Action =
  | { do: "dial"; conn: number; url: string }
  | { do: "send"; conn: number; text: string }
  /** With 1000 it is a goodbye; without a code the user may come back. */
  | { do: "close"; conn: number; code?: number }
  /** Replaces the timer of this name; `null` stops it. */
  | { do: "timer"; name: TimerName; ms: number | null }
  | { do: "tell"; event: ClientEvent | RoomEvent }
  | { do: "settle"; outcome: Outcome }
  /** A new token is wanted: answer by `refresh` or `noToken`, with this number. */
  | { do: "renew"; n: number };

/** What is sent again until it has a final answer. `body`: its frame without the id. */
export interface Publish { body: string; first?: number }

export interface MachineOptions {
  urls: readonly string[];
  random: () => number;
  now: () => number;
  backoff?: readonly [number, number];
  /** Whether another token can be had. */
  renewable?: boolean;
}

type Bye = Extract<ClientEvent, { type: "bye" }>;
/** A token that is replaced while its connection stands; `longest`: of the windows of the pauses, ms. */
interface Renewal { step: "fetching" | "waiting" | "asked"; failures: number; longest: number }
interface Connection { id: number; url: string; bye?: Bye | undefined; ping: number; silent: number; heard: boolean }

export class Machine {
  /** What is to be done, in order; the driver takes it after each call. */
  readonly out: Action[] = [];
  readonly rooms: Rooms;
  /** By id, which is the order of sending. */
  readonly outbox = new Map<number, Publish>();
  /** Questions by id; they change nothing, so that a new connection is asked again. */
  private readonly questions = new Map<number, string>();
  private readonly backoff: Backoff;
  private lastId = 0;
  private lastConn = 0;
  private active: Connection | undefined;
  private dialling: Connection | undefined;
  /** Left behind by a move: only answers count. */
  private old: Connection | undefined;
  /** Ids up to this one may have been sent on a connection before. */
  private oldTo = 0;
  private unsent: number[] = [];
  private fenced = false;
  /** Waits for the timer `dial`; `told`: for as long as the server said. */
  private waiting: { url: string; told: boolean } | undefined;
  private refusals = 0;
  private refreshId = 0;
  /** One at a time. */
  private renewal: Renewal | undefined;
  private lastRenewal = 0;
  ended = false;

  constructor(private readonly options: MachineOptions) {
    this.backoff = new Backoff(options.urls, options.random, options.now, options.backoff);
    this.rooms = new Rooms(() => ++this.lastId);
  }

  get connection(): number | undefined { return this.active?.id; }
  get unanswered(): number { return this.outbox.size; }
  get asking(): number { return this.questions.size; }

  /** Begins to live: the first attempt without a pause, as somebody waits for it and nobody else comes with it. */
  start(): void { this.begin(0); }

  /** A publish, a cancel: sent when it is its turn, and again until it is answered. */
  publish(publish: Publish): number {
    const id = ++this.lastId;
    this.outbox.set(id, publish);
    this.unsent.push(id);
    return id;
  }

  /** The next frame of the outbox to send on the active connection, oldest first. */
  nextPublish(): string | undefined {
    // Behind a fence nothing is stored any more.
    while (this.active && !this.fenced && this.unsent.length) {
      const id = this.unsent.shift()!;
      const publish = this.outbox.get(id);
      if (!publish) continue;
      publish.first ??= this.options.now();
      return `${publish.body.slice(0, -1)},"id":${id}}`;
    }
    return undefined;
  }

  ask(frame: object): number {
    const id = ++this.lastId;
    const text = JSON.stringify({ ...frame, id });
    this.questions.set(id, text);
    if (this.active) this.send(text);
    return id;
  }

  subscribe(room: string, at: Position, watches: boolean): void {
    const text = this.rooms.open(room, at, watches, this.active !== undefined);
    if (text) this.send(text);
  }

  /** Leaves a room; with `keeps` it is remembered where, until `resume`. */
  unsubscribe(room: string, keeps = false): void {
    if (!this.rooms.close(room, keeps) || !this.active) return;
    this.send(JSON.stringify({ unsub: room, id: ++this.lastId }));
  }

  resume(room: string): void {
    const text = this.rooms.resume(room, this.active !== undefined);
    if (text) this.send(text);
  }

  /** The connection stands, and nobody has said `welcome` yet. */
  opened(conn: number, hasToken: boolean): void {
    // Whom the server does not let in without a token it tells nothing for 10 s, unless it is asked something.
    if (!hasToken) this.out.push({ do: "send", conn, text: '{"ping":1,"id":0}' });
  }

  /** The token that was wanted; `undefined`: there is no other, and the connection stands until the old one ends. */
  refresh(n: number, token: string | undefined): void {
    if (!this.isFetching(n)) return;
    if (token === undefined) return this.endRenewal();
    this.renewal!.step = "asked";
    this.stop("renew");
    this.send(JSON.stringify({ refresh: { token }, id: (this.refreshId = ++this.lastId) }));
  }

  /** The token that was wanted cannot be had now. */
  noToken(n: number): void {
    if (this.isFetching(n)) this.renewAgain();
  }

  /** Anything came, a ping too. */
  heard(conn: number): void {
    if (this.active?.id === conn) this.active.heard = true;
  }

  frame(conn: number, text: string): void {
    this.heard(conn);
    let frame: any;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.drop(conn, "a frame of the server is not JSON");
    }
    if (this.dialling?.id === conn) return this.greeting(this.dialling, frame);
    const isActive = this.active?.id === conn;
    if (!isActive && this.old?.id !== conn) return;
    if (frame.ok || frame.error) this.answer(frame, isActive);
    // What an old connection still delivers is the new one's to deliver.
    else if (isActive) this.told(frame);
    this.leaveOld();
  }

  /** A connection has ended, or never stood; `afterMs`: it is not to be asked again before. */
  closed(conn: number, code: number | undefined, reason: string, afterMs?: number): void {
    if (this.dialling?.id === conn) {
      const { url, bye } = this.dialling;
      const wait = bye?.reconnect_ms ?? afterMs;
      if (code !== undefined && code >= 4500 && code < 5000) return this.refused(bye?.reason ?? reason);
      if (wait !== undefined) this.backoff.refused(url, wait);
      this.failed();
    } else if (this.active?.id === conn) {
      this.lost(code, reason);
    } else if (this.old?.id === conn) {
      this.forgetOld();
    }
  }

  timer(name: TimerName): void {
    if (name === "dial") this.dial();
    else if (name === "welcome" && this.dialling) this.drop(this.dialling.id, "no welcome in time");
    else if (name === "old" && this.old) this.forgetOld(1000);
    else if (name === "fence" && this.active) this.drop(this.active.id, "no close after retry:true");
    else if (name === "quiet") this.quiet();
    else if (name === "renew" && this.renewal?.step === "fetching") this.renewAgain();
    else if (name === "renew") this.fetchToken();
  }

  /** The page is seen again, or the network is back: not what the server asked for is cut short, but our own pause. */
  hurry(): void {
    if (this.waiting && !this.waiting.told) this.stop("dial", this.options.random() * 200);
    if (!this.active) return;
    this.active.heard = false;
    this.active.silent = 2;
    this.probe(this.active, PROBE_MS);
  }

  /** The program has had enough: a goodbye, and no answer any more. */
  close(): void {
    for (const one of [this.active, this.old, this.dialling]) {
      if (one) this.out.push({ do: "close", conn: one.id, code: 1000 });
    }
    this.end("closed by this side");
  }

  private send(text: string): void {
    if (this.active) this.out.push({ do: "send", conn: this.active.id, text });
  }

  private tell(event: ClientEvent | RoomEvent | undefined): void {
    if (event) this.out.push({ do: "tell", event });
  }

  private stop(name: TimerName, ms: number | null = null): void { this.out.push({ do: "timer", name, ms }); }

  /** Begins to dial after this pause, unless it does already; `told` by the server. */
  private begin(told?: number): void {
    if (this.dialling || this.waiting || this.ended) return;
    const { url, pause } = this.backoff.choose(told ?? this.backoff.pause());
    this.waiting = { url, told: told !== undefined };
    this.stop("dial", pause);
    if (!this.active && this.lastConn) this.tell({ type: "reconnecting", attempt: this.backoff.failures, pause });
  }

  private dial(): void {
    if (!this.waiting) return;
    const { url } = this.waiting;
    this.waiting = undefined;
    this.dialling = { id: ++this.lastConn, url, ping: 0, silent: 0, heard: true };
    this.out.push({ do: "dial", conn: this.lastConn, url });
    this.stop("welcome", WELCOME_MS);
  }

  private failed(): void {
    this.dialling = undefined;
    this.stop("welcome");
    this.backoff.failures++;
    this.begin();
  }

  /** A gateway wants this client not to come like this. Where another connection stands, that ends nothing. */
  private refused(reason: string): void {
    if (this.dialling) this.out.push({ do: "close", conn: this.dialling.id });
    // A fresh token that is refused at once will be refused again.
    if (this.active || (this.options.renewable && this.refusals++ === 0)) this.failed();
    else this.end(reason);
  }

  private greeting(conn: Connection, frame: any): void {
    if (frame.welcome) return this.attach(conn, frame.welcome);
    if (frame.bye) {
      conn.bye = frame.bye;
      if (!frame.bye.reconnect) this.refused(frame.bye.reason);
    } else if (frame.error && !frame.error.retry) {
      this.refused(frame.error.message);
    }
  }

  /** Makes a connection the active one. What was active is kept for the answers it may still bring. */
  private attach(conn: Connection, welcome: Welcome): void {
    this.forgetOld(1000);
    const moved = this.active !== undefined;
    this.old = this.active;
    this.oldTo = this.lastId;
    this.active = conn;
    this.dialling = undefined;
    this.fenced = false;
    this.refusals = this.backoff.failures = 0;
    this.stop("welcome");
    this.stop("fence");
    // It began with the newest token that there was.
    this.endRenewal();
    conn.ping = welcome.ping_s * 1000;
    this.stop("quiet", conn.ping);
    if (welcome.token) this.tell({ type: "token", token: welcome.token });
    this.tell({ type: "connected", url: conn.url, welcome, moved });
    for (const text of this.rooms.askAll()) this.send(text);
    for (const text of this.questions.values()) this.send(text);
    this.expire();
    // Everything without an answer is sent again, before anything new; its key makes that safe.
    this.unsent = [...this.outbox.keys()];
    if (this.old) this.stop("old", OLD_MS);
    this.leaveOld();
  }

  /** What was first sent an hour ago is not sent again: its key may be forgotten. */
  private expire(): void {
    const before = this.options.now() - RESEND_MS;
    for (const [id, { first }] of this.outbox) {
      if (first === undefined || first > before) continue;
      const message = "no answer for an hour: it may or may not be stored";
      this.settle({ type: "refused", id, error: { code: "unknown", message, retry: false } });
    }
  }

  private answer(frame: any, isActive: boolean): void {
    const { id, error } = frame;
    if (id === undefined || id === this.refreshId) {
      if (!isActive) return;
      if (error) this.tell({ type: "error", error });
      if (id !== undefined && error) this.renewAgain();
      else if (id !== undefined) this.endRenewal();
      else if (frame.ok === "sub") this.tell(this.rooms.moved(frame));
    } else if (this.outbox.has(id)) {
      if (!error?.retry) this.settle(error ? { type: "refused", id, error } : { type: "answer", id, frame });
      // The fence of an old connection is history: its publishes are sent again already.
      else if (isActive && !this.fenced) {
        this.fenced = true;
        this.stop("fence", FENCE_MS);
      }
    } else if (this.questions.has(id)) {
      // One that cannot be answered now is asked again by whoever asked.
      this.settle(error ? { type: "refused", id, error } : { type: "answer", id, frame });
    } else {
      const answered = this.rooms.answer(frame);
      if (answered === "later") this.drop(this.active?.id, error.message);
      else answered.forEach(event => this.tell(event));
    }
  }

  private settle(outcome: Outcome): void {
    // Both connections may answer the same: the first counts.
    if (!this.outbox.delete(outcome.id)) this.questions.delete(outcome.id);
    this.out.push({ do: "settle", outcome });
  }

  private told(frame: any): void {
    if (frame.drain) {
      this.tell({ type: "drain", ...frame.drain });
      this.begin(frame.drain.reconnect_ms);
    } else if (frame.bye) {
      this.tell((this.active!.bye = { type: "bye", ...frame.bye }));
    } else if (frame.expiring) {
      this.renew(frame.expiring.within_ms);
    } else if (frame.unsubscribed !== undefined) {
      this.tell(this.rooms.ended(frame));
    } else {
      const event = this.rooms.delivery(frame);
      this.tell(event);
      // Told, and mended: what is missing comes when the room is resumed.
      if (event?.type === "gap") this.drop(this.active!.id, "a message is missing", GAP_MS);
    }
  }

  /** Begins to replace the token, unless it does already; several tries fit into the time that is left. */
  private renew(withinMs: number): void {
    if (this.renewal || !this.options.renewable) return;
    const longest = Math.min(Math.max(withinMs / TOKEN_TRIES, TOKEN_AGAIN_MS), TOKEN_AGAIN_MAX_MS);
    this.renewal = { step: "fetching", failures: 0, longest };
    this.fetchToken();
  }

  private fetchToken(): void {
    if (!this.renewal) return;
    this.renewal.step = "fetching";
    this.out.push({ do: "renew", n: ++this.lastRenewal });
    this.stop("renew", TOKEN_MS);
  }

  /** What comes late is of no use: another was asked for since, or the connection has ended. */
  private isFetching(n: number): boolean { return this.renewal?.step === "fetching" && n === this.lastRenewal; }

  /** There was none, or the server did not take it: once more, after a pause, and not all clients at once. */
  private renewAgain(): void {
    if (!this.renewal) return;
    const window = Math.min(TOKEN_AGAIN_MS * 2 ** Math.min(this.renewal.failures++, 16), this.renewal.longest);
    this.renewal.step = "waiting";
    this.stop("renew", window * (0.5 + this.options.random() / 2));
  }

  private endRenewal(): void {
    this.renewal = undefined;
    this.stop("renew");
  }

  /** Ends a connection from this side, without a goodbye. */
  private drop(conn: number | undefined, reason: string, pause?: number): void {
    if (conn === undefined) return;
    this.out.push({ do: "close", conn });
    if (pause !== undefined && this.active?.id === conn) this.begin(pause);
    this.closed(conn, undefined, reason);
  }

  private lost(code: number | undefined, reason: string): void {
    const { bye } = this.active!;
    this.forgetOld(1000);
    this.active = undefined;
    this.stop("quiet");
    this.stop("fence");
    this.endRenewal();
    const isFinal = bye?.reconnect === false || (code !== undefined && code >= 4500 && code < 5000);
    const renews = isFinal && this.options.renewable === true && (bye?.code ?? code) === 4501;
    this.tell({ type: "closed", code, reason, reconnects: !isFinal || renews });
    if (isFinal && !renews) this.end(bye?.reason ?? reason);
    // A move that is under way goes on: until its time has come nobody may be there.
    else this.begin(bye?.reconnect_ms);
  }

  private forgetOld(code?: number): void {
    if (!this.old) return;
    if (code) this.out.push({ do: "close", conn: this.old.id, code });
    this.old = undefined;
    this.stop("old");
  }

  /** Closes the old connection when nothing that was sent there is unanswered, and the new one has what it had. */
  private leaveOld(): void {
    if (!this.old) return;
    const [oldest] = this.outbox.keys();
    if ((oldest === undefined || oldest > this.oldTo) && !this.rooms.isAsking()) this.forgetOld(1000);
  }

  /** Nothing was said for a ping interval: browsers hide the server's pings, so it is asked. */
  private quiet(): void {
    const conn = this.active;
    if (!conn) return;
    if (conn.heard) {
      conn.heard = false;
      conn.silent = 0;
      this.stop("quiet", conn.ping);
    } else if (++conn.silent >= 3) {
      this.drop(conn.id, "nothing heard from the server");
    } else {
      this.probe(conn, conn.ping);
    }
  }

  private probe(conn: Connection, ms: number): void {
    this.out.push({ do: "send", conn: conn.id, text: '{"ping":1,"id":0}' });
    this.stop("quiet", ms);
  }

  private end(reason: string): void {
    if (this.ended) return;
    this.ended = true;
    this.active = this.dialling = this.old = this.waiting = this.renewal = undefined;
    for (const name of ["dial", "welcome", "quiet", "fence", "old", "renew"] as const) this.stop(name);
    const error = { code: "closed", message: `the client has ended: ${reason}`, retry: false };
    for (const id of [...this.outbox.keys(), ...this.questions.keys()]) this.settle({ type: "refused", id, error });
    this.tell({ type: "ended", reason });
  }
}
