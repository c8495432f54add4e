/** The client of Sluice for browsers. */
import { openWebSocket, watchPage } from "./browser.js";
import { Client, Options } from "./client.js";

export { Client, randomKey } from "./client.js";
export type { KeptPublish, OpenSocket, Options, OutboxStore, PublishOptions, Socket, SocketEvents, State } from "./client.js";
export { Machine } from "./machine.js";
export { Room } from "./room.js";
export type { RoomOptions } from "./room.js";
export * from "./types.js";

/** Connects, and stays connected until `close`. Rooms and publishes need not wait for it. */
export function connect(url: string, options: Options = {}): Client {
  const client = new Client(url, options, options.open ?? openWebSocket);
  watchPage(client);
  return client;
}
