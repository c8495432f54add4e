/**
 * One connection for all tabs: the tab that holds a Web Lock leads, connects, and serves the others over a
 * BroadcastChannel. Each tab has a whole client of its own, whose gateway is the leader: when that tab is closed another
 * one leads, and the rest resume there, as they would after the kill of a gateway.
 */
import { openWebSocket, watchPage } from "./browser.js";
import { Client, Options, Socket, SocketEvents } from "./client.js";
import { Relay } from "./relay.js";

type Letter = { to: string; from: string; conn: number; text?: string | undefined; ends?: boolean } | { leader: string };

export interface SharedOptions extends Options {
  /** Tabs with the same name share; one for each user. */
  name: string;
}

/** Like `connect`, over the one connection of all tabs with this name. Needs a page of https:// or of localhost. */
export function connectShared(url: string, { name, token, ...options }: SharedOptions): Client {
  const me = Array.from(crypto.getRandomValues(new Uint32Array(4)), part => part.toString(36)).join("");
  const channel = new BroadcastChannel(`sluice ${name}`);
  const sockets = new Map<number, SocketEvents>();
  let count = 0;
  let relay: Relay | undefined;
  let anonymous: string | undefined;
  const stopped = new AbortController();

  const deliver = (letter: Letter) => {
    if ("leader" in letter) {
      // Whoever led before has ended, and what was asked there has no answer.
      for (const [conn, events] of [...sockets]) {
        sockets.delete(conn);
        events.closed(undefined, "another tab leads now");
      }
    } else if (letter.to === me) {
      const events = sockets.get(letter.conn);
      if (letter.ends) sockets.delete(letter.conn);
      if (letter.text !== undefined) events?.text(letter.text);
      if (letter.ends) events?.closed(undefined, "the leading tab ended it");
    } else if (letter.to === "leader") {
      relay?.heard(letter.from, letter.conn, letter.text, letter.ends === true);
    }
  };
  // A channel does not deliver to itself; in its place, and in the same order.
  const post = (letter: Letter) => {
    channel.postMessage(letter);
    queueMicrotask(() => deliver(letter));
  };
  channel.onmessage = ({ data }) => deliver(data as Letter);

  const open = (_url: string, _token: string | undefined, events: SocketEvents): Socket => {
    const conn = ++count;
    sockets.set(conn, events);
    // Not before its lock is held, by which the leader sees that this tab lives.
    void held.then(() => {
      post({ to: "leader", from: me, conn });
      if (sockets.has(conn)) events.open();
    });
    return {
      send: text => post({ to: "leader", from: me, conn, text }),
      close: () => {
        sockets.delete(conn);
        post({ to: "leader", from: me, conn, ends: true });
      },
      buffered: 0,
    };
  };

  // Told by the end of this lock that this tab has ended, also by a crash.
  const held = new Promise<void>(resolve => {
    const hold = () => {
      resolve();
      return forever();
    };
    void navigator.locks.request(`sluice tab ${me}`, { signal: stopped.signal }, hold).catch(nothing);
  });
  void navigator.locks.request(`sluice leader ${name}`, { signal: stopped.signal }, () => {
    const upstream = new Client(url, { ...options, token: token ?? anonymous, store: undefined }, options.open ?? openWebSocket);
    watchPage(upstream);
    relay = new Relay(upstream, (to, conn, text, ends) => post({ to, from: me, conn, text, ...(ends && { ends }) }));
    post({ leader: me });
    return forever();
  }).catch(nothing);

  function forever(): Promise<void> {
    return new Promise((_, reject) => stopped.signal.addEventListener("abort", () => reject(new Error("closed"))));
  }

  const client = new Client(url, { backoff: [50, 1_000], ...(options.store && { store: options.store }) }, open);
  client.on("token", event => (anonymous = event.token));
  client.on("ended", () => {
    relay?.close();
    // after the goodbye, which is on its way
    setTimeout(() => {
      stopped.abort();
      channel.close();
    });
  });
  return client;
}

function nothing(): void {}
