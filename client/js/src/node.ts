/** The client of Sluice for Node: the same, with a WebSocket of its own, as Node 20 has none. */
import { Client, Options } from "./client.js";
import { openNodeSocket } from "./node-socket.js";

export { Client, randomKey } from "./client.js";
export { Machine } from "./machine.js";
export { Room } from "./room.js";
export { openNodeSocket };
export { SluiceError } from "./types.js";

export function connect(url: string, options: Options = {}): Client {
  return new Client(url, options, options.open ?? openNodeSocket);
}
