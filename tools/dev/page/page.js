/** The page of `sluice dev`: a client of the gateways, and what the services say of themselves meanwhile. */
import { CountingClient } from "./client.js";
import { services } from "./services.js";
import { $, TICK_MS, show } from "./show.js";

const WAITING_MAX = 500;

const client = show.of = new CountingClient(show);
let ticks = 0;

$("join").onsubmit = event => {
  event.preventDefault();
  if (client.room) client.leave();
  else if (client.sdk) {
    $("log").replaceChildren();                   // of another room
    client.join($("room").value);
  }
  show.last = null;
  show.now();
};
$("say").onsubmit = event => {
  event.preventDefault();
  if (!client.room || !$("text").value) return;
  void client.publish($("text").value);
  $("text").value = "";
  show.now();
};
$("earlier").onclick = () => client.earlier();
$("roll-all").onclick = () => services.rollAll();
$("tick").onchange = () => {
  show.ticking = $("tick").checked ? performance.now() : null;
  show.pause = null;
};
setInterval(() => {
  show.now();                                     // what waits gets older
  if (!$("tick").checked || !client.room || client.waiting.size >= WAITING_MAX) return;
  void client.publish({ tick: ++ticks });
  show.asked ??= performance.now();
}, TICK_MS);

show.now();
void services.look(all => {
  if (client.sdk) return;
  client.connect(all.filter(({ ws }) => ws));
  client.join($("room").value);
});
// For the console of whoever looks in: `client.sdk` is the SDK's client.
Object.assign(globalThis, { $, client, services, show });
