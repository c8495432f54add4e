/** The driver: owns sockets, timers and promises, and lets the machine decide. */
import { DATA_BYTES_MAX, KEY_MAX, OUTBOX_MAX, REQUESTS_MAX, ROOM_MAX, SENDING_BYTES, SENDING_MS } from "./defaults.js";
import { Emitter } from "./emitter.js";
import { Machine } from "./machine.js";
import type { Action, TimerName } from "./machine.js";
import { Room, RoomOptions } from "./room.js";
import { ClientEvent, HistoryPage, PresencePage, PresentUser, RoomEvent, Scheduled, SluiceError, Stored } from "./types.js";

/** A WebSocket, as far as it is needed. `retryAfterMs`: a server that was there has said when to come. */
export interface Socket {
  send(text: string): void;
  close(code?: number): void;
  /** Bytes that are not handed to the network. */
  readonly buffered: number;
}
export interface SocketEvents {
  open(): void;
  text(text: string): void;
  /** A ping, where they can be seen. */
  heard(): void;
  closed(code: number | undefined, reason: string, retryAfterMs?: number): void;
}
export type OpenSocket = (url: string, token: string | undefined, events: SocketEvents) => Socket;

/** A publish that a store keeps over the end of a page. */
export interface KeptPublish { body: string; first?: number }
export interface OutboxStore {
  /** What pages that have ended have left, oldest first. It belongs to this page now. */
  load(): Promise<{ place: IDBValidKey; kept: KeptPublish }[]>;
  /** Keeps one; resolves when it is safe, with its place. */
  put(kept: KeptPublish): Promise<IDBValidKey>;
  remove(place: IDBValidKey): Promise<void>;
}

export interface Options {
  /** A token, or what gets one: it is called for every connection, and before a token expires. */
  token?: string | (() => string | undefined | Promise<string | undefined>) | undefined;
  /** Further gateways; each attempt goes to the next. */
  or?: string[] | undefined;
  /** Keeps unanswered publishes over a reload; see `sluice-client/store`. */
  store?: OutboxStore | undefined;
  /** First and longest window of the random pause between attempts, ms. */
  backoff?: readonly [number, number] | undefined;
  outboxMax?: number | undefined;
  /** Another WebSocket. */
  open?: OpenSocket | undefined;
}

export interface PublishOptions {
  /** The same key stores the same message once. A random one unless told. */
  key?: string | undefined;
  /** Not before so many milliseconds are over, 30 days at most. */
  delayMs?: number | undefined;
  /** Not before then, milliseconds since 1970. */
  at?: number | undefined;
}

export type State = "connecting" | "open" | "reconnecting" | "ended";
type Events = { [E in ClientEvent as E["type"]]: E } & { state: State; unanswered: number };

interface Waiting { resolve: (frame: any) => void; reject: (error: Error) => void; place?: IDBValidKey | undefined }
interface Queued { body: string; first?: number; waiting: Waiting }

export class Client extends Emitter<Events> {
  state: State = "connecting";
  /** Who the server says this is. */
  user: string | undefined;
  private readonly machine: Machine;
  private readonly rooms = new Map<string, Room>();
  private readonly sockets = new Map<number, Socket>();
  private readonly timers = new Map<TimerName | "full", ReturnType<typeof setTimeout>>();
  private readonly waiting = new Map<number, Waiting>();
  /** Publishes that wait for a place in the outbox. */
  private readonly queued: Queued[] = [];
  private token: Options["token"];
  private isFlushing = false;
  /** What a store has to keep first is done one after the other: the order of calls is the order of sending. */
  private kept: Promise<unknown> = Promise.resolve();

  constructor(url: string, private readonly options: Options, private readonly open: OpenSocket) {
    super();
    this.token = options.token;
    this.machine = new Machine({
      urls: [url, ...(options.or ?? [])],
      random: Math.random,
      now: Date.now,
      renewable: typeof options.token === "function",
      ...(options.backoff && { backoff: options.backoff }),
    });
    if (options.store) this.kept = this.adopt(options.store);
    this.machine.start();
    this.flush();
  }

  get ended(): boolean { return this.machine.ended; }
  /** Publishes without an answer. */
  get unanswered(): number { return this.machine.unanswered + this.queued.length; }

  /** Subscribes to a room; a second call returns the same one. */
  room<T = any>(name: string, options: RoomOptions = {}): Room<T> {
    const before = this.rooms.get(name);
    if (before) return before as Room<T>;
    checkName("a room", name, ROOM_MAX);
    const room = new Room<T>(this, name, options);
    this.rooms.set(name, room);
    this.machine.subscribe(name, { after: options.after, epoch: options.epoch }, options.presence === true);
    this.flush();
    return room;
  }

  /** @internal */
  leave(room: Room): void {
    if (this.rooms.get(room.name) !== room) return;
    this.rooms.delete(room.name);
    room.end();
    this.machine.unsubscribe(room.name);
    this.flush();
  }

  /** @internal */
  pause(name: string): void {
    this.machine.unsubscribe(name, true);
    this.flush();
  }

  /** @internal */
  unpause(name: string): void {
    this.machine.resume(name);
    this.flush();
  }

  /**
   * Resolves when the message is stored. It is sent, and sent again under the same key, until there is a final answer;
   * the order of calls is the order in the room. Rejects with the server's code, or with `unknown` or `closed`.
   */
  publish(room: string, data: unknown, options: PublishOptions & ({ delayMs: number } | { at: number })): Promise<Stored | Scheduled>;
  publish(room: string, data: unknown, options?: PublishOptions): Promise<Stored>;
  async publish(room: string, data: unknown, options: PublishOptions = {}): Promise<Stored | Scheduled> {
    const { key = randomKey(), delayMs, at } = options;
    checkName("a room", room, ROOM_MAX);
    checkName("a key", key, KEY_MAX);
    const text = JSON.stringify(data);
    if (text === undefined) throw new SluiceError("invalid", "data cannot be written as JSON");
    // Here rather than by the server: it would end the connection for a frame that is too large.
    if (text.length * 3 > DATA_BYTES_MAX && new TextEncoder().encode(text).length > DATA_BYTES_MAX) {
      throw new SluiceError("too_large", `data has more than ${DATA_BYTES_MAX} bytes`);
    }
    const head = JSON.stringify({ pub: room, key, delay_ms: delayMs, at });
    const { seq, due } = await this.submit(`${head.slice(0, -1)},"data":${text}}`);
    return due === undefined ? { seq, key } : { due, key };
  }

  /** Takes back what waits under this key; `false`: nothing does. */
  async cancel(room: string, key: string): Promise<boolean> {
    return (await this.submit(JSON.stringify({ cancel: room, key }))).cancelled;
  }

  /** A page of messages, oldest first, at most 256. */
  async history<T = any>(
    room: string,
    { before, after, limit }: { before?: number; after?: number; limit?: number } = {},
  ): Promise<HistoryPage<T>> {
    const frame = await this.ask({ history: room, before, after, limit });
    const messages = frame.messages.map(({ msg, ...rest }: any) => ({ type: "message", room: msg, ...rest }));
    const on = frame.before !== undefined ? { before: frame.before } : { after: frame.after };
    return { messages, ...(frame.more && { more: on }) };
  }

  /** Everybody in a room, sorted by name. */
  async presence(room: string): Promise<PresentUser[]> {
    const all: PresentUser[] = [];
    for (;;) {
      const page = await this.presencePage(room, all.at(-1)?.user);
      all.push(...page.users);
      if (!page.more || !page.users.length) return all;
    }
  }

  /** A page of the users whose names sort after this one, and how many there are. */
  async presencePage(room: string, after?: string, limit?: number): Promise<PresencePage> {
    const { users, count, connections, more = false } = await this.ask({ presence: room, after, limit });
    return { users, count, connections, more };
  }

  /** Resolves when the server has answered. */
  async ping(): Promise<void> { await this.ask({ ping: 1 }); }

  /** For the page that is seen again, or the network that is back: looks at once whether the connection lives. */
  hurry(): void {
    this.machine.hurry();
    this.flush();
  }

  /** @internal To another gateway now, without waiting for the time that `drain` has told. */
  move(): void {
    this.machine.timer("dial");
    this.flush();
  }

  /** Says goodbye. What is unanswered is rejected with `closed`; a store keeps it. */
  close(): void {
    this.machine.close();
    this.flush();
  }

  /** @internal */
  async ask(frame: object): Promise<any> {
    if (this.ended) throw new SluiceError("closed", "the client has ended");
    if (this.machine.asking >= REQUESTS_MAX) throw new SluiceError("busy", "too many questions wait for an answer");
    return new Promise((resolve, reject) => {
      this.waiting.set(this.machine.ask(frame), { resolve, reject });
      this.flush();
    });
  }

  /** @internal */
  async submit(body: string): Promise<any> {
    const { store, outboxMax = OUTBOX_MAX } = this.options;
    if (this.ended) throw new SluiceError("closed", "the client has ended");
    if (this.queued.length >= outboxMax) throw new SluiceError("busy", "too many publishes wait: await some of them");
    const put = (place?: IDBValidKey) => new Promise<any>((resolve, reject) => {
      this.queued.push({ body, waiting: { resolve, reject, place } });
      this.flush();
    });
    if (!store) return put();
    const kept = this.kept.then(() => store.put({ body, first: Date.now() }));
    this.kept = kept.catch(() => undefined);
    // A disk that is full must not keep the message from being sent.
    return kept.then(put, () => put());
  }

  private async adopt(store: OutboxStore): Promise<void> {
    const all = await store.load().catch(() => []);
    const nobody = () => undefined;
    for (const { place, kept } of all) {
      this.queued.push({ ...kept, waiting: { resolve: nobody, reject: nobody, place } });
    }
    this.flush();
  }

  /** Does what the machine wants, in order. What callbacks of the program cause is done after it. */
  private flush(): void {
    if (this.isFlushing) return;
    this.isFlushing = true;
    try {
      for (;;) {
        this.admit();
        const action = this.machine.out.shift();
        if (action) this.act(action);
        else if (!this.pump()) break;
      }
    } finally {
      this.isFlushing = false;
    }
  }

  private admit(): void {
    const { outboxMax = OUTBOX_MAX } = this.options;
    while (this.queued.length && (this.machine.unanswered < outboxMax || this.ended)) {
      const { body, first, waiting } = this.queued.shift()!;
      if (this.ended) waiting.reject(new SluiceError("closed", "the client has ended"));
      else this.waiting.set(this.machine.publish(first === undefined ? { body } : { body, first }), waiting);
      this.emit("unanswered", this.unanswered);
    }
  }

  /** Moves publishes from the outbox to the socket: what is not sent yet is not sent twice when the connection breaks. */
  private pump(): boolean {
    const conn = this.machine.connection;
    const socket = conn === undefined ? undefined : this.sockets.get(conn);
    if (!socket) return false;
    if (socket.buffered > SENDING_BYTES) {
      this.timer("full", SENDING_MS, () => undefined);
      return false;
    }
    const text = this.machine.nextPublish();
    if (text !== undefined) socket.send(text);
    return text !== undefined;
  }

  private act(action: Action): void {
    switch (action.do) {
      case "dial":
        return void this.dial(action.conn, action.url);
      case "send":
        return this.sockets.get(action.conn)?.send(action.text);
      case "close":
        this.sockets.get(action.conn)?.close(action.code);
        return void this.sockets.delete(action.conn);
      case "timer":
        return this.timer(action.name, action.ms, () => this.machine.timer(action.name));
      case "renew":
        return void this.renew(action.n);
      case "settle":
        return this.settle(action.outcome);
      case "tell":
        return "room" in action.event ? this.inRoom(action.event) : this.happened(action.event);
    }
  }

  private timer(name: TimerName | "full", ms: number | null, fire: () => void): void {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
    if (ms === null) return;
    const run = () => {
      this.timers.delete(name);
      fire();
      this.flush();
    };
    this.timers.set(name, setTimeout(run, ms));
  }

  private async dial(conn: number, url: string): Promise<void> {
    const { machine, sockets } = this;
    const then = (what: () => void) => {
      what();
      this.flush();
    };
    try {
      const token = typeof this.token === "function" ? await this.token() : this.token;
      if (machine.ended) return;
      sockets.set(conn, this.open(url, token, {
        open: () => then(() => machine.opened(conn, token !== undefined)),
        text: text => then(() => machine.frame(conn, text)),
        heard: () => machine.heard(conn),
        closed: (code, reason, retryAfterMs) => {
          sockets.delete(conn);
          then(() => machine.closed(conn, code, reason, retryAfterMs));
        },
      }));
    } catch (error) {
      then(() => machine.closed(conn, undefined, `no connection: ${error}`));
    }
  }

  /** A token that expires soon is replaced without a new connection; one that cannot be had is asked for again. */
  private async renew(n: number): Promise<void> {
    try {
      const token = typeof this.token === "function" ? await this.token() : undefined;
      this.machine.refresh(n, token);
    } catch (error) {
      this.machine.noToken(n);
      this.emit("error", { type: "error", error: { code: "unauthorized", message: `no token: ${error}`, retry: true } });
    }
    this.flush();
  }

  private settle(outcome: Extract<Action, { do: "settle" }>["outcome"]): void {
    const waiting = this.waiting.get(outcome.id);
    this.waiting.delete(outcome.id);
    if (!waiting) return;
    const { resolve, reject, place } = waiting;
    // An end of this page is no outcome: the next one sends it again.
    const isFinal = outcome.type === "answer" || outcome.error.code !== "closed";
    if (place !== undefined && isFinal) void this.options.store!.remove(place).catch(() => undefined);
    if (outcome.type === "answer") resolve(outcome.frame);
    else reject(new SluiceError(outcome.error.code, outcome.error.message));
    this.emit("unanswered", this.unanswered);
  }

  private inRoom(event: RoomEvent): void {
    const room = this.rooms.get(event.room);
    if (event.type === "unsubscribed") this.rooms.delete(event.room);
    room?.deliver(event);
  }

  private happened(event: ClientEvent): void {
    if (event.type === "connected") this.user = event.welcome.user;
    // An anonymous user stays who it is: under another name a resend is a new message.
    if (event.type === "token" && typeof this.token !== "function") this.token = event.token;
    this.emit(event.type, event as never);
    const states: { [type: string]: State } = { connected: "open", closed: "reconnecting", ended: "ended" };
    const state = states[event.type] ?? this.state;
    if (state !== this.state) this.emit("state", (this.state = state));
    if (event.type === "ended") {
      this.rooms.forEach(room => room.end());
      this.rooms.clear();
    }
  }
}

function checkName(what: string, name: string, max: number): void {
  if (typeof name !== "string" || !name || name.length > max) {
    throw new SluiceError("invalid", `${what} has a name of 1 to ${max} bytes`);
  }
}

/** A key that nobody else has: 32 hex digits. */
export function randomKey(): string {
  // not randomUUID: a page of http:// has none
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, "0")).join("");
}
