// The chat, on the SDK alone: rooms, who is here, history by scrolling up, ticks, and a count of what was missed.
import { connect } from "/sdk.js";

const ROOMS = ["lobby", "random", "support"];
const PAGE = 50;
const $ = id => document.getElementById(id);

/** A token for a name; the SDK asks for it when it connects, and before it expires. */
async function tokenFor(name) {
  const answer = await fetch("/token", { method: "POST", body: JSON.stringify({ name }) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** A name for this tab: from the address, from before a reload, or asked for. */
async function whoIsThis() {
  const known = new URLSearchParams(location.search).get("name") ?? sessionStorage.name;
  if (known) return known;
  $("login").showModal();
  await new Promise(resolve => $("login").addEventListener("close", resolve));
  return $("name").value || whoIsThis();
}

const name = sessionStorage.name = await whoIsThis();
const { gateways: [first, ...or] } = await tokenFor(name);
const client = connect(first, { or, token: async () => (await tokenFor(name)).token });

client.on("state", state => {
  $("state").textContent = state === "open" ? `${name}: connected` : state;
  $("state").className = `badge ${state === "open" ? "" : state === "ended" ? "bad" : "busy"}`;
});
client.on("ended", ({ reason }) => line("note", `the end: ${reason}`));

// What is missed is counted by positions alone, so that it would also count a mistake of the SDK.
let missed = 0, expected;
function came(seq) {
  if (expected !== undefined && seq > expected) missed += seq - expected;
  expected = Math.max(expected ?? 0, seq + 1);
  $("missed").textContent = `${missed} missed`;
  $("missed").className = `badge ${missed ? "bad" : ""}`;
}

let room, older, isReading = false;

function line(kind, text, { from, at } = {}, before) {
  const item = document.createElement("li");
  item.className = kind;
  if (from) item.append(Object.assign(document.createElement("b"), { textContent: from }));
  item.append(text);
  const tick = document.createElement("small");
  tick.textContent = at ? new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "";
  item.append(tick);
  const log = $("log"), view = log.parentElement;
  const below = view.scrollHeight - view.scrollTop;
  const isAtEnd = below - view.clientHeight < 60;
  before ? log.prepend(item) : log.append(item);
  if (before) view.scrollTop = view.scrollHeight - below; // what people read stays where it is
  else if (isAtEnd) view.scrollTop = view.scrollHeight;
  return { item, tick };
}

const said = new Map(); // key: the line of a message of ours that has not come back yet

function show(message) {
  came(message.seq);
  const own = said.get(message.key);
  said.delete(message.key);
  own?.item.remove(); // it stands where it was stored
  const { tick } = line("", message.data.text, message);
  if (message.from === client.user) tick.textContent += " ✓✓";
}

async function earlier() {
  if (isReading || !older) return;
  isReading = true;
  const asked = room;
  try {
    const { messages, more } = await asked.history({ ...older, limit: PAGE });
    if (asked !== room) return;
    for (const message of messages.reverse()) line("", message.data.text, message, true);
    older = more;
  } finally {
    isReading = false;
  }
}

function enter(which) {
  room?.leave();
  $("log").replaceChildren();
  $("members").replaceChildren();
  said.clear();
  [expected, older] = [undefined, undefined];
  const entered = room = client.room(`chat.${which}`, { presence: true });
  room.on("subscribed", ({ after }) => {
    expected = after + 1;
    older = { before: after + 1 };
    void earlier();
  });
  room.on("message", show);
  room.on("skipped", ({ from, to }) => came(to) ?? line("note", `${from} to ${to} are gone for good`));
  room.on("resumed", ({ recovered, after }) => {
    if (recovered) return;
    expected = after + 1;
    line("note", "the server has another history now: some messages may be missing");
  });
  room.on("unsubscribed", ({ error }) => line("note", error.message));
  room.on("members", list => {
    if (entered !== room) return;
    $("members").replaceChildren(...list.map(({ user, info }) => Object.assign(document.createElement("li"), { textContent: info?.name ?? user })));
  });
  for (const button of $("rooms").children) {
    button.toggleAttribute("aria-current", button.textContent === which);
  }
  location.hash = which;
}

$("say").onsubmit = event => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const own = line("", text, { from: name });
  own.tick.textContent = "…";
  said.set(key, own);
  // One tick: stored. Two, and its place: it has come back, as to everybody.
  room.publish({ text }, { key }).then(
    () => { own.tick.textContent = "✓"; },
    error => { own.tick.textContent = `✗ ${error.message}`; },
  );
};
$("log").parentElement.addEventListener("scroll", ({ target }) => { if (target.scrollTop < 80) void earlier(); });
$("rooms").replaceChildren(...ROOMS.map(which => Object.assign(document.createElement("button"), { textContent: which, onclick: () => enter(which) })));
enter(ROOMS.includes(location.hash.slice(1)) ? location.hash.slice(1) : ROOMS[0]);
