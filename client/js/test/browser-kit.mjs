// A real Chromium, driven over its DevTools, and the chat of examples/ behind a front door, as it is deployed.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect as dial } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { openNodeSocket } from "../dist/node.js";
import { until } from "./kit.mjs";

export const chromium = ["chromium", "google-chrome"].find(name => spawnSync(name, ["--version"]).status === 0);

export class Browser {
  static async start() {
    const browser = new Browser();
    browser.profile = mkdtempSync(join(tmpdir(), "sluice-chromium-"));
    browser.child = spawn(chromium, [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
      "--remote-debugging-port=0", "--window-size=1000,700", `--user-data-dir=${browser.profile}`, "about:blank",
    ], { stdio: ["ignore", "ignore", "pipe"] });
    const lines = createInterface(browser.child.stderr);
    for await (const line of lines) {
      const [, address] = /DevTools listening on (\S+)/.exec(line) ?? [];
      if (!address) continue;
      browser.child.stderr.resume();
      await browser.attach(address);
      return browser;
    }
    throw new Error("Chromium ended");
  }

  asked = 0;
  waiting = new Map();

  async attach(address) {
    await new Promise((open, reject) => {
      this.socket = openNodeSocket(address, undefined, {
        open, heard() {}, closed: (_, reason) => reject(new Error(reason)),
        text: text => {
          const { id, result, error } = JSON.parse(text);
          const { resolve, reject } = this.waiting.get(id) ?? {};
          error ? reject?.(new Error(error.message)) : resolve?.(result);
        },
      });
    });
  }

  ask(method, params, sessionId) {
    const id = ++this.asked;
    this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async open(url) {
    const { targetId } = await this.ask("Target.createTarget", { url });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    return new Tab(this, targetId, sessionId);
  }

  async stop() {
    this.socket.close(1000);
    this.child.kill();
    await once(this.child, "exit");
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Tab {
  constructor(browser, id, session) { Object.assign(this, { browser, id, session }); }

  ask(method, params) { return this.browser.ask(method, params, this.session); }

  async value(expression) {
    const params = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", params);
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /** Waits until an expression holds in the page, which may still be loading. */
  async until(expression) {
    let holds = false, last;
    await until(() => {
      last ??= this.value(`(() => { try { return Boolean(${expression}) } catch { return false } })()`)
        .then(value => (holds = value), () => undefined).finally(() => (last = undefined));
      return holds;
    }, expression);
  }

  async size(width, height) {
    await this.ask("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  /** For people, in docs/: the page as it looks now, in the folder that the environment names. */
  async picture(name) {
    const folder = process.env.SLUICE_TEST_PICTURES;
    if (!folder) return;
    const { data } = await this.ask("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(folder, name), Buffer.from(data, "base64"));
  }

  async close() { await this.browser.ask("Target.closeTarget", { targetId: this.id }); }
}

/** The chat's backend, and one address for it and all gateways, as a balancer makes it. */
export async function startChat(dev) {
  const script = fileURLToPath(new URL("../../../examples/chat/server.py", import.meta.url));
  let front;
  const server = createServer((request, response) => {
    const body = [];
    request.on("data", bytes => body.push(bytes)).on("end", async () => {
      const { method, url } = request;
      const answer = await fetch(front.backend + url, { method, ...(method === "POST" && { body: Buffer.concat(body) }) });
      response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type") });
      response.end(Buffer.from(await answer.arrayBuffer()));
    });
  });
  let turn = 0;
  const upgrade = (request, near, head) => {
    if (front.isCut) return near.destroy();
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let n = 0; n < request.rawHeaders.length; n += 2) lines.push(`${request.rawHeaders[n]}: ${request.rawHeaders[n + 1]}`);
    const far = dial(Number(new URL(dev.urls[turn++ % dev.urls.length]).port), "127.0.0.1");
    far.write(`${lines.join("\r\n")}\r\n\r\n`);
    far.write(head);
    far.pipe(near).pipe(far);
    front.open.add(near);
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on("error", () => undefined).on("close", () => { other.destroy(); front.open.delete(near); });
    }
  };
  server.on("upgrade", upgrade);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = `127.0.0.1:${server.address().port}`;
  const env = { ...process.env, SLUICE_TOKEN_SECRET: dev.secret, SLUICE_GATEWAYS: `ws://${address}/ws` };
  const child = spawn("python3", [script, "--port", "0"], { env, stdio: ["ignore", "pipe", "ignore"] });
  const [backend] = await once(createInterface(child.stdout), "line");
  front = {
    backend, upgrade, url: `http://${address}`, open: new Set(), isCut: false,
    /** Nobody comes through any more, until it is mended. */
    cut(isCut) {
      front.isCut = isCut;
      if (isCut) front.open.forEach(socket => socket.destroy());
    },
    stop() {
      child.kill();
      front.cut(true);
      server.close();
      server.closeAllConnections();
    },
  };
  return front;
}
