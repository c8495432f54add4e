// Real processes for the tests: `sluice dev`, and wires that can be cut.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createHmac } from "node:crypto";
import { connect as dial, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url));
const sluice = process.env.SLUICE_BIN ?? join(target, "debug/sluice");

/** Longest wait for anything: CI has two busy cores. */
export const SOON = 60_000;

/** `sluice dev` in a folder of its own. */
export async function startDev(gateways = 2, ...more) {
  assert.ok(existsSync(sluice), `${sluice} is there: make build makes it, or SLUICE_BIN names another`);
  const dir = mkdtempSync(join(tmpdir(), "sluice-js-"));
  const child = spawn(sluice, ["dev", "--json", "--port", "0", "--gateways", String(gateways), "--dir", dir, ...more], {
    stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, RUST_LOG: "warn" },
  });
  let log = "";
  child.stderr.on("data", bytes => (log = (log + bytes).slice(-10_000)));
  const gone = once(child, "exit");
  const line = once(createInterface(child.stdout), "line").then(([text]) => JSON.parse(text));
  const told = await Promise.race([line, gone.then(() => Promise.reject(new Error(`sluice dev ended: ${log}`)))]);
  const { token_secret: secret } = JSON.parse(readFileSync(join(dir, "sluice-dev.json"), "utf8"));
  return {
    secret,
    page: told.page,
    urls: told.gateways.map(gateway => gateway.ws),
    names: told.gateways.map(gateway => gateway.name),
    token: (user, claims) => token(secret, user, claims),
    async restart(name) {
      const answer = await fetch(`${told.page}/dev/restart/${name}`, { method: "POST", headers: { "x-sluice-dev": "1" } });
      assert.ok(answer.ok, await answer.text());
    },
    async stop() {
      child.kill("SIGTERM");
      await gone;
      rmSync(dir, { recursive: true });
    },
  };
}

/** A token as a backend would sign it. */
export function token(secret, user, claims = {}) {
  const part = value => Buffer.from(JSON.stringify(value)).toString("base64url");
  const grants = { sub: ["*"], pub: ["*"] };
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600, grants, ...claims })}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
}

/** A wire to a gateway that breaks off when it is told to, in the middle of a frame as likely as not. */
export class Wire {
  pairs = new Set();
  cuts = 0;

  static async to(url) {
    const wire = new Wire();
    const { port } = new URL(url);
    wire.server = createServer(near => {
      const far = dial(Number(port), "127.0.0.1");
      const pair = { near, far, left: Infinity };
      wire.pairs.add(pair);
      const end = () => {
        wire.pairs.delete(pair);
        near.destroy();
        far.destroy();
      };
      for (const [from, to] of [[near, far], [far, near]]) {
        from.on("data", bytes => {
          to.write(bytes.subarray(0, pair.left));
          if ((pair.left -= bytes.length) <= 0) end();
        });
        from.on("error", end).on("close", end);
      }
    });
    wire.server.listen(0, "127.0.0.1");
    await once(wire.server, "listening");
    wire.url = `ws://127.0.0.1:${wire.server.address().port}/ws`;
    return wire;
  }

  /** Breaks every connection after at most so many bytes more. */
  cut(bytes) {
    for (const pair of this.pairs) {
      if (pair.left !== Infinity) continue;
      pair.left = Math.floor(Math.random() * bytes) + 1;
      this.cuts++;
    }
  }

  stop() {
    this.server.close();
    for (const { near, far } of this.pairs) near.destroy(), far.destroy();
  }
}

/** Waits until something holds. */
export async function until(holds, what) {
  const end = Date.now() + SOON;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not in time: ${typeof what === "function" ? what() : what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

/** What a reader saw of a room: 1, 2, 3, …, of each sender each number once and in order. */
export function assertWhole(messages, last) {
  assert.deepEqual(messages.map(message => message.seq), Array.from({ length: last }, (_, n) => n + 1));
  const next = new Map();
  for (const { from, data } of messages) {
    assert.equal(data, next.get(from) ?? 0, `the next number of ${from}`);
    next.set(from, data + 1);
  }
}
