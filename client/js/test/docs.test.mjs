// What the README shows is true: its blocks are executed, from top to bottom.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { connect } from "../dist/node.js";
import { startDev } from "./kit.mjs";

test("the blocks of the README do what they say", async t => {
  const dev = await startDev();
  t.after(() => dev.stop());
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code);
  assert.ok(blocks.length >= 6, `${blocks.length} blocks`);
  const said = [];
  const log = (...words) => said.push(words.join(" "));
  const quiet = { log, assert: assert.ok };
  const run = Object.getPrototypeOf(async () => {}).constructor("connect", "url", "getToken", "console", blocks.join("\n"));
  await run(connect, dev.urls[0], async () => dev.token("ann"), quiet);
  assert.deepEqual(said, ["1 ann [object Object]", "called back", "ann"]);
});
