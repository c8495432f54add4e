// A client of the drill that is written with the JavaScript client. A line of JSON on standard input is a wish, a line on
// standard output is something that happened, in its order; the end of the input is a goodbye. The drill judges.
import { createInterface } from "node:readline";
import { connect } from "../../../client/js/dist/node.js";

if (process.argv.includes("--check")) process.exit(0);

const say = event => process.stdout.write(`${JSON.stringify(event)}\n`);
let client;

function begin({ urls: [url, ...or], token, rooms }) {
  client = connect(url, { token, or });
  const told = ({ type, ...rest }) => say({ event: type, ...rest });
  client.on("connected", ({ welcome: { instance, epoch } }) => say({ event: "connected", instance, epoch }));
  for (const type of ["drain", "bye", "closed", "error", "ended"]) client.on(type, told);
  for (const name of rooms) {
    const room = client.room(name);
    for (const type of ["subscribed", "resumed", "skipped", "unsubscribed", "gap"]) room.on(type, told);
    // As text: what is judged is what came, byte for byte, and this is how all of it was written.
    room.on("message", ({ room, seq, from, key, data }) =>
      say({ event: "message", room, seq, from, key, data: JSON.stringify(data) }));
  }
}

function publish({ n, room, key, data }) {
  client.publish(room, JSON.parse(data), { key }).then(
    ({ seq }) => say({ event: "answer", n, seq }),
    error => say({ event: "answer", n, code: error.code ?? String(error) }),
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const wish = JSON.parse(line);
  if (wish.begin) begin(wish.begin);
  else if (wish.publish) publish(wish.publish);
}
client?.close();
