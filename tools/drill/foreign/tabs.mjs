// Clients of wishes.mjs in the tabs of one Chromium. Usage: tabs.mjs PROFILE, a folder for its own. The first line on
// standard output is JSON: the origin of the page, and the port where tabs are to be had. Each connection to that port is a
// tab and speaks as client.mjs does; the end of the input ends the browser.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { createServer as createPage } from "node:http";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

const FLAGS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  // Nobody is called but who is drilled.
  "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
  // A process for each of twenty tabs would be gigabytes.
  "--renderer-process-limit=2",
  "--remote-debugging-pipe",
];

const file = path => readFileSync(new URL(path, import.meta.url));
const program = ["chromium", "google-chrome"].find(name => spawnSync(name, ["--version"]).status === 0);
const files = {
  "/": ["text/html", `<!doctype html><title>A client of the drill</title><script type="module">
    import { connect } from "/client.js";
    import { attend } from "/wishes.mjs";
    globalThis.drill = attend(connect, event => tell(JSON.stringify(event)));
  </script>`],
  "/client.js": ["text/javascript", file("../../../client/js/dist/index.js")],
  "/wishes.mjs": ["text/javascript", file("wishes.mjs")],
};

function fail(why) {
  process.stderr.write(`tabs: ${why}\n`);
  process.exit(1);
}
if (!program) fail("there is no chromium and no google-chrome on PATH");
if (process.argv.includes("--check")) process.exit(0);

/** Chromium, asked over a pair of pipes: they end with this process, and then it ends too. */
class Browser {
  asked = 0;
  waiting = new Map();
  tabs = new Map();

  constructor(profile) {
    this.child = spawn(program, [...FLAGS, `--user-data-dir=${profile}`, "about:blank"],
      { stdio: ["ignore", "ignore", "inherit", "pipe", "pipe"] });
    const output = this.child.stdio[4].setEncoding("utf8");
    let rest = "";
    output.on("data", text => {
      const lines = (rest + text).split("\0");
      rest = lines.pop();
      for (const line of lines) this.heard(JSON.parse(line));
    });
  }

  ask(method, params = {}, sessionId) {
    const id = ++this.asked;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  heard({ id, result, error, method, params, sessionId }) {
    if (id !== undefined) {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      return error ? reject(new Error(error.message)) : resolve(result);
    }
    const tab = this.tabs.get(sessionId);
    if (method === "Runtime.bindingCalled") tab?.told(params.payload);
    else if (method === "Page.loadEventFired") tab?.loaded();
    else if (method === "Inspector.targetCrashed") tab?.failed("the tab crashed");
    else if (method === "Runtime.exceptionThrown") tab?.failed(JSON.stringify(params.exceptionDetails));
  }

  /** A tab with the page, which tells `told` what happens. */
  async open(url, told, failed) {
    const { targetId } = await this.ask("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    const loaded = new Promise(loaded => this.tabs.set(sessionId, { told, failed, loaded }));
    for (const domain of ["Page", "Runtime", "Inspector"]) await this.ask(`${domain}.enable`, {}, sessionId);
    await this.ask("Runtime.addBinding", { name: "tell" }, sessionId);
    await this.ask("Page.navigate", { url }, sessionId);
    await loaded;
    return async expression => {
      const { result, exceptionDetails } = await this.ask("Runtime.evaluate", { expression }, sessionId);
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    };
  }
}

const page = createPage((request, response) => {
  const [type, body] = files[request.url] ?? [];
  response.writeHead(type ? 200 : 404, { "Content-Type": type ?? "text/plain" }).end(body);
}).listen(0, "127.0.0.1");
await once(page, "listening");
const origin = `http://127.0.0.1:${page.address().port}`;

const [, , profile] = process.argv;
const browser = new Browser(profile);
browser.child.on("error", error => fail(error.message));
browser.child.on("exit", code => fail(`Chromium has ended: ${code}`));
await browser.ask("Browser.getVersion");

async function serve(socket) {
  const failed = why => {
    process.stderr.write(`tabs: ${why}\n`);
    socket.destroy();
  };
  socket.on("error", failed);
  try {
    const run = await browser.open(`${origin}/`, line => socket.write(`${line}\n`), failed);
    // Not awaited one by one: they are carried out in this order, and an answer takes the way twice. JSON is JavaScript.
    for await (const line of createInterface({ input: socket })) run(`drill.wish(${line})`).catch(failed);
    // For the log: a browser slows down the timers of tabs that nobody sees.
    process.stderr.write(`tabs: one that is ${await run("document.visibilityState")} ends\n`);
    await run("drill.close()");
    // The tab stays until all end: closed now, it would take the close frame with it.
    socket.end();
  } catch (error) {
    failed(error);
  }
}

const tabs = createServer({ allowHalfOpen: true, noDelay: true }, serve).listen(0, "127.0.0.1");
await once(tabs, "listening");
process.stdout.write(`${JSON.stringify({ origin, port: tabs.address().port })}\n`);

process.stdin.resume();
await once(process.stdin, "end");
browser.child.removeAllListeners("exit");
const ended = once(browser.child, "exit");
await Promise.race([browser.ask("Browser.close"), ended]);
await ended;
rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
process.exit(0);
