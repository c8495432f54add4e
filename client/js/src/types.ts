/** What programs see: messages, events, answers. No code. */

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Where a subscription begins: nothing = with the next message; 0 = with the first. */
export interface Position {
  after?: number | undefined;
  /** The history `after` belongs to; a server with another one says `recovered:false`. */
  epoch?: string | undefined;
}

export interface Message<T = Json> {
  type: "message";
  room: string;
  /** One more than that of the message before it. */
  seq: number;
  from: string;
  /** The sender's key, if it chose one. */
  key?: string;
  /** When it was stored, milliseconds since 1970. */
  at: number;
  data: T;
}

/** Messages `from` to `to` are gone and will not come. */
export interface Skipped { type: "skipped"; room: string; from: number; to: number }

/** The answer to a subscription: the next message is `after + 1`. */
export interface Subscribed {
  type: "subscribed" | "resumed";
  room: string;
  after: number;
  head: number;
  epoch: string;
  /** `false`: something may be missing before `after`; look with `history`. */
  recovered: boolean;
}

/** The subscription is over: it was refused, or the server ended it. It will not be tried again. */
export interface Unsubscribed { type: "unsubscribed"; room: string; error: WireError }
/** A user's first connection came into a room that is watched. */
export interface Joined { type: "joined"; room: string; user: string; at: number; info?: Json }
/** A user's last connection has left it. */
export interface Left { type: "left"; room: string; user: string; at: number }
/** Joins and leaves may have been missed: ask again who is there, after a random time below two seconds. */
export interface Stale { type: "stale"; room: string }
/** The server broke its promise: this is not the next message. The room is resumed, and nothing skipped. */
export interface Gap { type: "gap"; room: string; expected: number; seq: number }

/** What happens in a room, in order. */
export type RoomEvent<T = Json> = Message<T> | Skipped | Subscribed | Unsubscribed | Joined | Left | Stale | Gap;

export interface Welcome {
  session: string;
  instance: string;
  user: string;
  token?: string;
  epoch: string;
  ping_s: number;
  limits: Record<string, number>;
}

/** What happens to the connection. */
export type ClientEvent =
  | { type: "connected"; url: string; welcome: Welcome; moved: boolean }
  | { type: "drain"; reason: string; within_ms: number; reconnect_ms: number }
  | { type: "bye"; code: number; reason: string; reconnect: boolean; reconnect_ms?: number }
  | { type: "closed"; code: number | undefined; reason: string; reconnects: boolean }
  | { type: "reconnecting"; attempt: number; pause: number }
  /** An anonymous user's token: present it after a reload to stay who you are. */
  | { type: "token"; token: string }
  /** An error that answers no call. */
  | { type: "error"; error: WireError }
  | { type: "ended"; reason: string };

export interface WireError { code: string; message: string; retry: boolean }

export interface Stored { seq: number; key: string }
/** A message for later that waits until `due`, milliseconds since 1970; `key` takes it back. */
export interface Scheduled { due: number; key: string }

export interface PresentUser { user: string; connections: number; since: number; info?: Json }
export interface PresencePage { users: PresentUser[]; count: number; connections: number; more: boolean }
export interface HistoryPage<T = Json> {
  /** Oldest first. */
  messages: Message<T>[];
  /** Where to go on, if the room has more in this direction. */
  more?: { before: number } | { after: number };
}

/** Why a call failed. `code`: one of the server's, or `disconnected`, `closed`, `busy`, `invalid`, `unknown`. */
export class SluiceError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.name = "SluiceError";
    this.code = code;
  }
}
