/** What the leading tab does for the others: speaks the protocol of a gateway to them, over the one client it has. */
import type { Client } from "./client.js";
import type { Room } from "./room.js";
import { SluiceError } from "./types.js";
import type { Message, RoomEvent, Subscribed, Welcome } from "./types.js";

type Say = (to: string, conn: number, text: string | undefined, ends?: boolean) => void;

interface Session { say(frame: object): void; end(): void; rooms: Set<string> }
/** A tab in a room. What comes while it is behind waits until it has caught up. */
interface Reader { watches: boolean; waiting: object[] | undefined }

/** A room that is subscribed to once, for all who want it. */
interface Hub { room: Room; watches: boolean; at: Subscribed | undefined; readers: Map<Session, Reader>; asked: [Session, any][] }

export class Relay {
  private readonly sessions = new Map<string, Session>();
  private readonly hubs = new Map<string, Hub>();
  private welcome: Welcome | undefined;
  private isClosing = false;

  constructor(private readonly upstream: Client, private readonly post: Say) {
    upstream.on("token", ({ token }) => { if (this.welcome) this.welcome.token = token; });
    upstream.on("connected", ({ welcome }) => {
      const isFirst = !this.welcome;
      this.welcome = { ...this.welcome, ...welcome };
      if (isFirst) this.sessions.forEach(session => session.say({ welcome: this.welcome }));
    });
    upstream.on("ended", ({ reason }) => {
      if (this.isClosing) return; // another tab leads next
      const bye = { code: 4501, reason, reconnect: false };
      this.sessions.forEach(session => session.say({ bye }));
    });
  }

  close(): void {
    this.isClosing = true;
    this.upstream.close();
  }

  /** A tab says something, comes, or goes. */
  heard(tab: string, conn: number, text: string | undefined, ends: boolean): void {
    const key = `${tab} ${conn}`;
    const session = this.sessions.get(key);
    if (ends) this.left(key);
    else if (text !== undefined && session) this.frame(session, JSON.parse(text));
    else if (text === undefined && !session) this.came(tab, conn, key);
  }

  private came(tab: string, conn: number, key: string): void {
    const session: Session = {
      say: frame => this.post(tab, conn, JSON.stringify(frame)),
      end: () => {
        this.left(key);
        this.post(tab, conn, undefined, true);
      },
      rooms: new Set(),
    };
    this.sessions.set(key, session);
    // Granted when the tab has ended, however it did.
    void navigator.locks.request(`sluice tab ${tab}`, () => session.end());
    if (this.welcome) session.say({ welcome: this.welcome });
    if (this.upstream.ended) session.say({ bye: { code: 4501, reason: "the connection has ended", reconnect: false } });
  }

  private left(key: string): void {
    const session = this.sessions.get(key);
    this.sessions.delete(key);
    for (const name of session?.rooms ?? []) this.leave(session!, name);
  }

  private frame(session: Session, { id, ...frame }: any): void {
    const answer = (work: Promise<any>) => work.then(
      answered => session.say({ ...answered, id }),
      ({ code, message }: SluiceError) => {
        // No outcome: the tab asks the next leader, or this one again.
        if (code === "closed") return;
        if (code === "busy") return session.end();
        session.say({ error: { code, message, retry: false }, id });
      },
    );
    if (id === 0) session.say({ ok: "ping", id });
    else if (frame.sub !== undefined) this.subscribe(session, { ...frame, id });
    else if (frame.unsub !== undefined) {
      this.leave(session, frame.unsub);
      session.say({ ok: "unsub", room: frame.unsub, id });
    } else if (frame.pub !== undefined || frame.cancel !== undefined) {
      // In the order of coming into the one outbox, which is that of each tab.
      void answer(this.upstream.submit(JSON.stringify(frame)));
    } else {
      void answer(this.upstream.ask(frame));
    }
  }

  private leave(session: Session, name: string): void {
    const hub = this.hubs.get(name);
    session.rooms.delete(name);
    if (!hub) return;
    hub.readers.delete(session);
    hub.asked = hub.asked.filter(([asked]) => asked !== session);
    if (hub.readers.size || hub.asked.length) return;
    this.hubs.delete(name);
    hub.room.leave();
  }

  private subscribe(session: Session, frame: any): void {
    const { sub: name, after, epoch, presence: watches = false } = frame;
    session.rooms.add(name);
    const hub = this.hubs.get(name) ?? this.open(name, { after, epoch, watches });
    if (watches && !hub.watches) {
      // asked anew, from where it is, to be told who comes and goes
      hub.room.leave();
      this.follow(name, hub, { ...hub.room.position, watches });
    }
    if (hub.at) void this.join(hub, session, frame);
    else hub.asked.push([session, frame]);
  }

  private open(name: string, at: { after?: number; epoch?: string; watches: boolean }): Hub {
    const hub = { watches: at.watches, at: undefined, readers: new Map(), asked: [] } as unknown as Hub;
    this.hubs.set(name, hub);
    this.follow(name, hub, at);
    return hub;
  }

  private follow(name: string, hub: Hub, { after, epoch, watches }: { after?: number | undefined; epoch?: string | undefined; watches: boolean }): void {
    hub.watches = watches;
    const room = (hub.room = this.upstream.room(name, { after, epoch, presence: watches }));
    const types = ["message", "skipped", "subscribed", "resumed", "unsubscribed", "joined", "left", "stale"] as const;
    for (const type of types) room.on(type, event => this.event(hub, event));
  }

  private event(hub: Hub, event: RoomEvent): void {
    const tell = (frame: object, onlyWatching = false) => {
      for (const [session, reader] of hub.readers) {
        if (onlyWatching && !reader.watches) continue;
        reader.waiting ? reader.waiting.push(frame) : session.say(frame);
      }
    };
    const { type, room, ...rest } = event as any;
    if (type === "message" || type === "skipped") {
      hub.at!.after = type === "message" ? rest.seq : rest.to;
      tell(type === "message" ? { msg: room, ...rest } : { skipped: room, ...rest });
    } else if (type === "subscribed" || type === "resumed") {
      const isFirst = !hub.at;
      hub.at = { ...event } as Subscribed;
      // The first who asked is answered as it was; a new history is told to all.
      const asked = hub.asked.splice(0);
      if (isFirst) asked.forEach(([session, frame]) => void this.join(hub, session, frame, hub.at!.recovered));
      else if (!rest.recovered) tell({ ok: "sub", room, ...rest });
    } else if (type === "unsubscribed") {
      const { code, message: reason } = rest.error;
      tell({ unsubscribed: room, code, reason });
      hub.asked.forEach(([session, frame]) => session.say({ error: rest.error, id: frame.id }));
      this.hubs.delete(room);
    } else {
      const verb = { joined: "join", left: "leave", stale: "stale" }[type as string]!;
      tell({ [verb]: room, ...rest }, true);
    }
  }

  /** Answers a `sub` from where the hub is, and brings whoever is behind up to it. */
  private async join(hub: Hub, session: Session, { sub: room, id, after, epoch, presence: watches = false }: any, recovered = true): Promise<void> {
    const { epoch: is, after: at, head } = hub.at!;
    const isKnown = recovered && (epoch === undefined || epoch === is);
    const from = isKnown ? after ?? at : at;
    const reader: Reader = { watches, waiting: [] };
    hub.readers.set(session, reader);
    session.say({ ok: "sub", room, after: from, head: Math.max(head, at, from), epoch: is, recovered: isKnown, id });
    try {
      for (let last = from; last < at;) {
        const { messages } = await this.upstream.history(room, { after: last });
        if (hub.readers.get(session) !== reader) return;
        for (const { type: _, room: msg, ...rest } of messages as Message[]) {
          if (rest.seq > last + 1) session.say({ skipped: room, from: last + 1, to: rest.seq - 1 });
          session.say({ msg, ...rest });
          last = rest.seq;
        }
        if (!messages.length) {
          session.say({ skipped: room, from: last + 1, to: at });
          break;
        }
      }
      // A client drops what it has had already.
      for (const frame of reader.waiting!) session.say(frame);
      reader.waiting = undefined;
    } catch {
      session.end(); // it comes again, and asks for the same
    }
  }
}
