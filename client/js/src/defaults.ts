/** Every limit of the client, with its arithmetic; the same as those of the Rust client. */

/** Handshake and `welcome` together. */
export const WELCOME_MS = 10_000;
/** First and longest window of the random pause before a reconnect. */
export const BACKOFF_MS: readonly [number, number] = [200, 10_000];
/** A gateway that refuses is left alone for as long as it says, up to this: some proxy may tell an hour. */
export const RETRY_AFTER_MAX_MS = 300_000;
/** Part of it that is added by chance: a crowd was told the same full seconds. */
export const RETRY_AFTER_SPREAD = 0.5;
/** After `retry:true` the server says `bye` within 10 s; one that does not is left. */
export const FENCE_MS = 12_000;
/** How long the connection left behind by a move may still bring answers. */
export const OLD_MS = 5_000;
/** A page that wakes up asks whether its connection lives; no answer for so long: it does not. */
export const PROBE_MS = 5_000;
/** After a message that is not the next one, the room is resumed on a new connection after so long. */
export const GAP_MS = 1_000;
/** A publish is sent again for an hour: the server keeps its key no longer than that for certain. */
export const RESEND_MS = 3_600_000;
/** A program's function gives a token within this, or is asked again. */
export const TOKEN_MS = 30_000;
/** First window of the pause before a token is asked for again while a connection stands; doubles up to the longest. */
export const TOKEN_AGAIN_MS = 500;
/** The longest window. */
export const TOKEN_AGAIN_MAX_MS = 5_000;
/** Where less is left of the token than this many of them, the longest is this part of it. */
export const TOKEN_TRIES = 6;
/** Publishes without an answer; as many more may wait for their place. */
export const OUTBOX_MAX = 4_096;
/** Questions (history, presence, ping) without an answer. */
export const REQUESTS_MAX = 256;
/** Events of a room kept for a reader that is behind; above it the room is left, and resumed when half are read. */
export const EVENTS_MAX = 1_024;
/** Bytes handed to a socket before more are formed from the outbox. */
export const SENDING_BYTES = 256 * 1024;
/** How soon a full socket is looked at again: browsers do not tell when there is space. */
export const SENDING_MS = 50;
/** `limits.data_bytes` of the protocol: a larger frame would end the connection. */
export const DATA_BYTES_MAX = 65_536;
/** Names in characters, each of at least one byte: `limits.room_bytes`, `limits.name_bytes`. */
export const ROOM_MAX = 129;
export const KEY_MAX = 128;
/** After `stale` everybody asks who is there, within this time at random. */
export const STALE_MS = 2_000;
/** How often browsers wake the timers of a page that nobody sees. */
export const HIDDEN_TIMER_MS = 1_000;
/** A `drain` that leaves no more than this comes from a gateway beside which no other one serves. */
export const ALONE_MS = 500;
