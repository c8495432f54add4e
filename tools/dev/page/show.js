/** What people see of the client: the log, what was counted, and the verdict. */
export const $ = id => document.getElementById(id);

export const TICK_MS = 100;
const LOG_MAX = 200, LATE_MS = 500;

const time = ms => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;

export const show = {
  of: null,                       // the client
  last: null, pause: null, ticking: null,
  asked: null, downs: 0,          // when the first publish since the last message was made, and `without` at that message

  item(seq, from, what, tone) {
    const item = document.createElement("li");
    for (const [name, text] of [["seq", seq], ["from " + (from === "you" ? "me" : ""), from], ["what " + (tone ?? ""), what]]) {
      item.append(Object.assign(document.createElement("span"), { className: name, textContent: text, title: text }));
    }
    return item;
  },

  line(...parts) {
    const log = $("log"), end = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(this.item(...parts));
    while (log.children.length > LOG_MAX) log.firstChild.remove();
    if (end) log.scrollTop = log.scrollHeight;
  },

  parts({ seq, from, data }, me) {
    return [seq, from === me ? "you" : from, typeof data === "string" ? data : JSON.stringify(data)];
  },

  note(text, tone) { this.line("·", "", text, tone); },

  message(message, me) {
    const pause = this.lasting();
    if (pause && pause.ms > (this.pause?.ms ?? 0)) this.pause = pause;
    Object.assign(this, { last: performance.now(), asked: null, downs: this.of.without() });
    this.line(...this.parts(message, me));
  },

  /** What was there before: above the rest, and what people read stays where it is. */
  earlier(messages, me) {
    const log = $("log"), below = log.scrollHeight - log.scrollTop;
    log.prepend(...messages.map(message => this.item(...this.parts(message, me), "earlier")));
    log.scrollTop = log.scrollHeight - below;
  },

  /** The pause that lasts, from when the next message could be expected: a browser ticks slowly behind other windows. */
  lasting() {
    if (this.ticking === null || this.asked === null || this.last === null || this.last < this.ticking) return null;
    const from = Math.max(this.last, this.asked - TICK_MS);
    return { ms: performance.now() - from, without: this.of.without() - this.downs };
  },

  /** The longest pause that has ended, or in its place one that lasts and is longer already: never one beside the other. */
  pauses() {
    const lasting = this.lasting(), lasts = lasting?.ms > Math.max(this.pause?.ms ?? 0, LATE_MS);
    const shown = lasts ? lasting : this.pause;
    $("pause-is").textContent = lasts ? "pause so far" : "longest pause";
    $("pause").className = lasts ? "busy" : "";
    $("pause").textContent = shown ? time(shown.ms) : "–";
    $("without").textContent = shown?.without >= 1 ? `${time(shown.without)} of it without a gateway` : "";
  },

  now() {
    const { at, room, count, oldest } = this.of, late = this.of.late();
    $("link").textContent = at ? `connected to ${at}` : count.attached ? "reconnecting …" : "connecting …";
    $("link").className = at ? "good" : "busy";
    $("link").dataset.gateway = at ?? "";
    $("joining").textContent = room ? "Leave" : "Join";
    $("room").disabled = Boolean(room);
    $("more").hidden = !(room && oldest > 1);
    for (const name of ["received", "missed", "twice"]) $(name).textContent = count[name].toLocaleString("en");
    $("moves").textContent = this.of.changes().toLocaleString("en");
    $("unanswered").textContent = late;
    this.pauses();
    const [tone, verdict] = this.verdict(late);
    $("verdict").className = tone;
    $("verdict").textContent = verdict;
  },

  verdict(late) {
    const { at, room, count } = this.of, changes = this.of.changes();
    const wrong = count.missed + count.twice + count.skipped + count.gaps;
    if (wrong) return ["bad", `${wrong} messages missed, twice or gone`];
    if (late) return ["busy", `${late} publish${late > 1 ? "es wait" : " waits"} for an answer`];
    if (!at && room && count.attached) return ["busy", "no gateway: what comes meanwhile is caught up with"];
    if (!count.received) return ["", ""];
    const refused = count.refused ? `, ${count.refused} publishes refused` : "";
    const across = changes ? `, across ${changes} move${changes > 1 ? "s" : ""}` : "";
    return [refused ? "busy" : "good", `every message once and in order${across}${refused}`];
  },
};
