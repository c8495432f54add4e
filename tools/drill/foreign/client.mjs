// The client of wishes.mjs on Node. A line of JSON on standard input is a wish, a line on standard output is something that
// happened; the end of the input is a goodbye.
import { createInterface } from "node:readline";
import { connect } from "../../../client/js/dist/node.js";
import { attend } from "./wishes.mjs";

if (process.argv.includes("--check")) process.exit(0);

const client = attend(connect, event => process.stdout.write(`${JSON.stringify(event)}\n`));
for await (const line of createInterface({ input: process.stdin })) client.wish(JSON.parse(line));
client.close();
