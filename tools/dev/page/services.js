/** What people see of the services, twice a second, and what they do to them. */
import { $, show } from "./show.js";

const STATE_MS = 500, STATE_WITHIN_MS = 2000;

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

export const services = {
  rows: new Map(), all: [],

  /** Calls `found` with all of them whenever they have answered. */
  async look(found) {
    try {
      const answer = await fetch("/dev/state", { signal: AbortSignal.timeout(STATE_WITHIN_MS) });
      this.all = (await answer.json()).services;
      this.all.forEach(service => this.row(service));
      found(this.all);
    } catch {
      this.rows.forEach(row => this.stage(row, "no answer", "bad"));
    }
    setTimeout(() => this.look(found), STATE_MS);
  },

  row(service) {
    const row = this.rows.get(service.name) ?? this.add(service);
    this.stage(row, service.stage ?? "starting", service.ready ? "good" : "busy");
    row.connections.textContent = service.connections ?? "";
    row.life.textContent = service.life;
    row.roll.disabled = !service.ready;
  },

  stage(row, text, tone) { Object.assign(row.stage, { textContent: text, className: tone }); },

  add({ name, admin }) {
    const cell = (className, ...children) => {
      const cell = make("td", { className });
      cell.append(...children);
      return cell;
    };
    const link = make("button", { className: "link", textContent: name, id: "status-" + name });
    link.onclick = () => this.status(name, admin);
    const roll = make("button", { textContent: "Roll", id: "roll-" + name });
    roll.onclick = () => this.roll(name);
    const row = { stage: cell(""), connections: cell("n"), life: cell("n"), roll };
    const line = document.createElement("tr");
    line.append(cell("", link), row.stage, row.connections, row.life, cell("n", roll));
    $("services").append(line);
    this.rows.set(name, row);
    return row;
  },

  /** What a service says of itself, as rows. */
  async status(name, admin) {
    $("of").textContent = `Status of ${name}`;
    $("raw").href = admin + "/status";
    $("metrics").href = admin + "/metrics";
    $("facts").replaceChildren();
    if (!$("status").open) $("status").showModal();
    const answer = await fetch("/dev/status/" + name).catch(() => null);
    const said = answer?.ok ? await answer.json() : { status: "no answer: it may be between two lives" };
    $("facts").replaceChildren(...facts("", said));
  },

  async roll(name) {
    show.note(`${name} is told to stop and start again`, "quiet");
    const answer = await fetch("/dev/restart/" + name, { method: "POST", headers: { "x-sluice-dev": "1" } });
    const said = await answer.json();
    show.note(answer.ok ? `${name} is back after ${said.elapsed_ms} ms` : said.error, answer.ok ? "good" : "bad");
  },

  /** One gateway after the other. */
  async rollAll() {
    $("roll-all").disabled = true;
    for (const { name, ws } of this.all) if (ws) await this.roll(name);
    $("roll-all").disabled = false;
  },
};

/** The rows of a value: one for each that is no object. */
function facts(label, value) {
  if (Array.isArray(value) && value.some(one => typeof one === "object")) {
    return value.flatMap((one, n) => facts(`${label} ${one.name ?? one.stage ?? n + 1}`, one));
  }
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, inner]) => facts(label ? `${label}: ${key}` : key, inner));
  }
  const isTime = label.endsWith("since_ms") && typeof value === "number";
  const shown = isTime ? new Date(value).toLocaleString() : Array.isArray(value) ? value.join(", ") : value;
  const name = isTime ? label.replace("since_ms", "since") : label;
  const row = document.createElement("tr");
  for (const text of [name.replaceAll("_", " "), shown === null || shown === "" ? "–" : shown]) {
    row.append(make("td", { textContent: text }));
  }
  return [row];
}
