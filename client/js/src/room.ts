/** A room as programs see it: events in order, by callback or iterator, with a bounded queue. */
import type { Client } from "./client.js";
import { EVENTS_MAX } from "./defaults.js";
import { Emitter } from "./emitter.js";
import { Members } from "./members.js";
import type { HistoryPage, Message, Position, PresentUser, RoomEvent, Stored } from "./types.js";

export interface RoomOptions extends Position {
  /** Also tell who comes and goes, and keep `members`. */
  presence?: boolean | undefined;
}

type Events<T> = { [E in RoomEvent<T> as E["type"]]: E } & { members: PresentUser[] };

export class Room<T = any> extends Emitter<Events<T>> implements AsyncIterable<Message<T>> {
  /** Last position handed to the program: keep it to resume after a reload. */
  position: Position;
  private readonly queue: RoomEvent<T>[] = [];
  private wake: (() => void) | undefined;
  private isRead = false;
  private isPaused = false;
  private isOver = false;
  private readonly who: Members | undefined;

  constructor(private readonly client: Client, readonly name: string, options: RoomOptions) {
    super();
    const { after, epoch, presence } = options;
    this.position = { after, epoch };
    if (presence) this.who = new Members(client, name, list => this.emit("members", list));
  }

  /** Who is here, sorted by name, as far as it is known; `members` tells of every change. */
  get members(): PresentUser[] { return this.who?.list() ?? []; }

  publish(data: T, options?: { key?: string }): Promise<Stored> { return this.client.publish(this.name, data, options); }

  /** A page of messages, oldest first: the newest, those before a seq, or those after one. */
  history(range?: { before?: number; after?: number; limit?: number }): Promise<HistoryPage<T>> {
    return this.client.history(this.name, range);
  }

  /** Leaves the room; iterators end. */
  leave(): void { this.client.leave(this); }

  /** Everything that happens here, in order, also what was skipped. One iterator at a time gets an event. */
  async *events(): AsyncGenerator<RoomEvent<T>, void, void> {
    this.isRead = true;
    try {
      for (;;) {
        const event = this.queue.shift();
        if (event) {
          this.taken(event);
          yield event;
        } else if (this.isOver) {
          return;
        } else {
          await new Promise<void>(resolve => (this.wake = resolve));
        }
      }
    } finally {
      this.isRead = false;
    }
  }

  /** The messages alone. Gaps are told by `events` and by the callbacks `skipped` and `resumed`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Message<T>, void, void> {
    for await (const event of this.events()) if (event.type === "message") yield event;
  }

  /** A callback for messages takes those that wait. */
  override on<K extends keyof Events<T>>(name: K, callback: (event: Events<T>[K]) => void): () => void {
    const off = super.on(name, callback);
    if (name === "message" && !this.isRead) {
      for (const event of this.queue.splice(0)) {
        this.taken(event);
        if (event.type === "message") this.emit("message", event as Events<T>["message"]);
      }
    }
    return off;
  }

  /** @internal */
  deliver(event: RoomEvent<T>): void {
    this.who?.event(event);
    // Without a callback for messages all waits for an iterator: nothing is lost before there is one.
    if (this.isRead || !this.hears("message")) {
      this.queue.push(event);
      this.wake?.();
      // A browser cannot stop reading a socket, but it can leave a room, and resume it where it was.
      if (this.queue.length >= EVENTS_MAX && !this.isPaused) {
        this.isPaused = true;
        this.client.pause(this.name);
      }
    } else {
      this.taken(event);
    }
    this.emit(event.type, event as never);
    if (event.type === "unsubscribed") this.end();
  }

  /** @internal */
  end(): void {
    this.isOver = true;
    this.who?.end();
    this.wake?.();
  }

  private taken(event: RoomEvent<T>): void {
    if (event.type === "message") this.position = { ...this.position, after: event.seq };
    else if (event.type === "skipped") this.position = { ...this.position, after: event.to };
    else if (event.type === "resumed" || event.type === "subscribed") {
      this.position = { after: event.after, epoch: event.epoch };
    }
    if (this.isPaused && this.queue.length <= EVENTS_MAX / 2) {
      this.isPaused = false;
      this.client.unpause(this.name);
    }
  }
}
