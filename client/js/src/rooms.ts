/** Subscriptions: where each began, how far it has come, what the server was asked. Pure. */
import type { Position, RoomEvent, Subscribed, WireError } from "./types.js";

interface Followed {
  /** Where to resume; after the first answer always a seq and its epoch. */
  at: Position;
  /** It is also told who comes and goes. */
  watches: boolean;
  /** The `sub` without an answer. Until it is there no message is taken: it may be of before. */
  asked: number | undefined;
  /** Left for a while, as its reader is behind. */
  isPaused: boolean;
  /** Whether the first answer was there. */
  stands: boolean;
}

export class Rooms {
  private readonly all = new Map<string, Followed>();

  constructor(private readonly id: () => number) {}

  has(name: string): boolean { return this.all.has(name); }

  /** A new subscription; its frame, if there is somebody to send it to. */
  open(name: string, at: Position, watches: boolean, isConnected: boolean): string | undefined {
    const room: Followed = { at, watches, asked: undefined, isPaused: false, stands: false };
    this.all.set(name, room);
    return isConnected ? this.frame(name, room) : undefined;
  }

  /** Forgets a room, or with `keeps` only pauses it; whether the server has to be told. */
  close(name: string, keeps: boolean): boolean {
    const room = this.all.get(name);
    if (!room) return false;
    const wasPaused = room.isPaused;
    room.isPaused = true;
    room.asked = undefined;
    if (!keeps) this.all.delete(name);
    return !wasPaused;
  }

  resume(name: string, isConnected: boolean): string | undefined {
    const room = this.all.get(name);
    if (!room?.isPaused) return undefined;
    room.isPaused = false;
    return isConnected ? this.frame(name, room) : undefined;
  }

  /** The frames that resume every subscription on a new connection. */
  askAll(): string[] {
    return [...this.all].filter(([, room]) => !room.isPaused).map(([name, room]) => this.frame(name, room));
  }

  isAsking(): boolean { return [...this.all.values()].some(room => room.asked !== undefined); }

  private frame(name: string, room: Followed): string {
    room.asked = this.id();
    const { after, epoch } = room.at; // JSON.stringify leaves out what is undefined
    return JSON.stringify({ sub: name, after, epoch, presence: room.watches || undefined, id: room.asked });
  }

  /** The answer to a `sub`; `later`: it can be had from another connection. */
  answer(frame: any): RoomEvent[] | "later" {
    const found = [...this.all].find(([, room]) => room.asked === frame.id);
    if (!found) return [];
    const [name, room] = found;
    const error: WireError | undefined = frame.error;
    if (error?.retry) return "later";
    if (error) {
      this.all.delete(name);
      return [{ type: "unsubscribed", room: name, error }];
    }
    room.asked = undefined;
    const event = stand(room, frame, room.stands ? "resumed" : "subscribed");
    // Who came and left meanwhile was told to nobody.
    const stale: RoomEvent[] = room.stands && room.watches ? [{ type: "stale", room: name }] : [];
    room.stands = true;
    return [event, ...stale];
  }

  /** An `ok` of `sub` that nobody asked for: the room has a new history. */
  moved(frame: any): RoomEvent | undefined {
    const room = this.all.get(frame.room);
    return room && !room.isPaused ? stand(room, frame, "resumed") : undefined;
  }

  /** What came unasked, if it belongs to a subscription that stands. */
  delivery(frame: any): RoomEvent | undefined {
    const { seq, from, to, user, at, info } = frame;
    const name = frame.msg ?? frame.skipped ?? frame.join ?? frame.leave ?? frame.stale;
    const room = this.all.get(name);
    if (!room || room.asked !== undefined || room.isPaused) return undefined;
    const after = room.at.after!;
    if (frame.msg !== undefined) {
      if (seq <= after) return undefined; // it came before
      if (seq !== after + 1) return { type: "gap", room: name, expected: after + 1, seq };
      room.at.after = seq;
      const { msg, ...rest } = frame;
      return { type: "message", room: msg, ...rest };
    }
    if (frame.skipped !== undefined) {
      if (to <= after) return undefined;
      room.at.after = to;
      return { type: "skipped", room: name, from, to };
    }
    if (!room.watches) return undefined;
    if (frame.stale !== undefined) return { type: "stale", room: name };
    if (frame.leave !== undefined) return { type: "left", room: name, user, at };
    return { type: "joined", room: name, user, at, ...(info !== undefined && { info }) };
  }

  /** The server has ended a subscription. A `sub` that is on its way asks for a new one. */
  ended({ unsubscribed: name, code, reason }: any): RoomEvent | undefined {
    const room = this.all.get(name);
    if (!room || room.asked !== undefined) return undefined;
    this.all.delete(name);
    return { type: "unsubscribed", room: name, error: { code, message: reason, retry: false } };
  }
}

function stand(room: Followed, frame: any, type: Subscribed["type"]): Subscribed {
  const { room: name, after, head, epoch, recovered } = frame;
  room.at = { after, epoch };
  return { type, room: name, after, head, epoch, recovered };
}
