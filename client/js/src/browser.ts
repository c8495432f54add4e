/** The browser's WebSocket, and what a browser tells a page about its network. */
import { ALONE_MS, HIDDEN_TIMER_MS } from "./defaults.js";
import type { Client, OpenSocket } from "./client.js";

export const openWebSocket: OpenSocket = (url, token, events) => {
  // A page can set no header; a subprotocol comes in one, and not in the address, which is logged.
  const protocols = ["sluice.v1.json", ...(token === undefined ? [] : [`bearer.${token}`])];
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => events.open();
  socket.onmessage = ({ data }) => events.text(data as string);
  socket.onclose = ({ code, reason }) => events.closed(code === 1006 ? undefined : code, reason);
  return {
    send: text => socket.send(text),
    close: code => {
      // A connection that is dead would only end when its close has timed out.
      socket.onmessage = socket.onclose = null;
      code === undefined ? socket.close() : socket.close(code);
    },
    get buffered() { return socket.bufferedAmount; },
  };
};

/** Looks after the connection when the page is seen again, or the network is back. */
export function watchPage(client: Client): void {
  if (typeof addEventListener !== "function" || typeof document === "undefined") return;
  const hurry = () => document.visibilityState === "visible" && client.hurry();
  addEventListener("online", hurry);
  addEventListener("pageshow", hurry);
  document.addEventListener("visibilitychange", hurry);
  // The timer of a hidden page may be late, and its gateway gone by then. Where nobody else serves, early is of no use.
  client.on("drain", ({ within_ms, reconnect_ms }) => {
    const isLate = within_ms > ALONE_MS && reconnect_ms + HIDDEN_TIMER_MS > within_ms;
    if (isLate && document.visibilityState === "hidden") client.move();
  });
  client.on("ended", () => {
    removeEventListener("online", hurry);
    removeEventListener("pageshow", hurry);
    document.removeEventListener("visibilitychange", hurry);
  });
}
