/**
 * Who is in a room, by the rules of proto/WIRE.md: the answer to `presence` is the truth, and events say how it changed
 * since; of two events about a user the later one counts, whatever their order.
 */
import type { Client } from "./client.js";
import { STALE_MS } from "./defaults.js";
import type { PresentUser, RoomEvent } from "./types.js";

export class Members {
  private users = new Map<string, PresentUser>();
  /** The last event about each user since the question that is under way. */
  private events = new Map<string, { at: number; user: PresentUser | undefined }>();
  private round = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly client: Client,
    private readonly room: string,
    private readonly changed: (list: PresentUser[]) => void,
  ) {}

  list(): PresentUser[] {
    return [...this.users.values()].sort((a, b) => (a.user < b.user ? -1 : 1));
  }

  event(event: RoomEvent<any>): void {
    if (event.type === "subscribed") this.later(0);
    // Everybody was told, and everybody asks.
    else if (event.type === "stale") this.later(Math.random() * STALE_MS);
    else if (event.type === "joined" || event.type === "left") {
      const { at, user: name } = event;
      if (at < (this.events.get(name)?.at ?? 0)) return;
      const joined = event.type === "joined";
      const info = joined && event.info !== undefined ? { info: event.info } : {};
      const user = joined ? { user: name, connections: 1, since: at, ...info } : undefined;
      this.events.set(name, { at, user });
      if (this.users.has(name) === joined) return; // who is there joins again: nothing new
      this.apply(name, user);
      this.changed(this.list());
    }
  }

  end(): void {
    this.round++;
    clearTimeout(this.timer);
  }

  private apply(name: string, user: PresentUser | undefined): void {
    if (user) this.users.set(name, user);
    else this.users.delete(name);
  }

  private later(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask(), ms);
  }

  /** Page after page; what is told meanwhile counts too. */
  private async ask(): Promise<void> {
    const round = ++this.round;
    this.events.clear();
    try {
      const all = await this.client.presence(this.room);
      if (round !== this.round) return;
      this.users = new Map(all.map(user => [user.user, user]));
      for (const [name, { user }] of this.events) {
        if (this.users.has(name) !== (user !== undefined)) this.apply(name, user);
      }
      this.changed(this.list());
    } catch {
      // refused now, or the client has ended; a new `ok` of `sub` asks again
      if (round === this.round && !this.client.ended) this.later(STALE_MS * (1 + Math.random()));
    }
  }
}
