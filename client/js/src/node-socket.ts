/**
 * A WebSocket client on Node's own HTTP (RFC 6455, no extensions). Unlike a browser's it sees the status of a refusal,
 * `Retry-After` and pings, and sends the token in a header.
 */
import { createHash, randomBytes } from "node:crypto";
import { request } from "node:http";
import { request as secureRequest } from "node:https";
import type { OpenSocket } from "./client.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/** Largest message read: a page of 256 messages of 64 KiB, and their names. */
const READ_BYTES_MAX = 24 * 1024 * 1024;
/** A close frame waits this long for the other side's. */
const CLOSE_MS = 1_000;
const [TEXT, CLOSE, PING, PONG] = [1, 8, 9, 10];

export const openNodeSocket: OpenSocket = (url, token, events) => {
  const target = new URL(url.replace(/^ws/, "http"));
  const key = randomBytes(16).toString("base64");
  const call = target.protocol === "https:" ? secureRequest : request;
  const headers = {
    Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key,
    "Sec-WebSocket-Protocol": "sluice.v1.json", ...(token !== undefined && { Authorization: `Bearer ${token}` }),
  };
  let socket: any;
  let isOver = false;
  const over = (code: number | undefined, reason: string, retryAfterMs?: number) => {
    if (isOver) return;
    isOver = true;
    events.closed(code, reason, retryAfterMs);
  };
  const write = (opcode: number, payload: any) => {
    if (socket && !socket.destroyed) socket.write(frame(opcode, payload));
  };
  const upgrade = call(target, { headers, agent: false });
  upgrade.on("upgrade", (response: any, stream: any, head: any) => {
    const expected = createHash("sha1").update(key + GUID).digest("base64");
    if (isOver || response.headers["sec-websocket-accept"] !== expected) return void stream.destroy();
    socket = stream;
    stream.setNoDelay(true);
    const reader = new FrameReader({
      text: text => !isOver && events.text(text),
      ping: payload => { events.heard(); write(PONG, payload); },
      pong: () => events.heard(),
      close: payload => {
        if (!isOver) write(CLOSE, payload.subarray(0, 2));
        stream.end();
        over(payload.length > 1 ? payload.readUInt16BE(0) : 1005, payload.subarray(2).toString());
      },
      broken: reason => { stream.destroy(); over(undefined, reason); },
    });
    stream.on("data", (bytes: any) => reader.read(bytes));
    stream.on("error", (error: Error) => over(undefined, error.message));
    stream.on("close", () => over(undefined, "the connection broke off"));
    events.open();
    if (head.length) reader.read(head);
  });
  upgrade.on("response", (response: any) => {
    const after = Number(response.headers["retry-after"]);
    response.resume();
    const refused = response.statusCode === 401 || response.statusCode === 403;
    // A token or an origin that is refused will be refused again.
    over(refused ? 4501 : undefined, `HTTP ${response.statusCode}`, after > 0 ? after * 1000 : undefined);
  });
  upgrade.on("error", (error: Error) => over(undefined, error.message));
  upgrade.end();
  return {
    send: text => write(TEXT, Buffer.from(text)),
    close: code => {
      isOver = true;
      if (!socket) return void upgrade.destroy();
      const payload = Buffer.alloc(code === undefined ? 0 : 2);
      if (code !== undefined) payload.writeUInt16BE(code);
      write(CLOSE, payload);
      (setTimeout(() => socket.destroy(), CLOSE_MS) as any).unref();
    },
    get buffered() { return socket?.writableLength ?? 0; },
  };
};

/** A masked frame, as clients send them. */
function frame(opcode: number, payload: any): any {
  const { length } = payload;
  const extra = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const out = Buffer.allocUnsafe(6 + extra + length);
  out[0] = 0x80 | opcode;
  out[1] = 0x80 | (extra === 0 ? length : extra === 2 ? 126 : 127);
  if (extra === 2) out.writeUInt16BE(length, 2);
  if (extra === 8) out.writeBigUInt64BE(BigInt(length), 2);
  const mask = randomBytes(4);
  mask.copy(out, 2 + extra);
  for (let n = 0; n < length; n++) out[6 + extra + n] = payload[n] ^ mask[n & 3];
  return out;
}

interface Frames {
  text(text: string): void;
  ping(payload: any): void;
  pong(): void;
  close(payload: any): void;
  broken(reason: string): void;
}

/** Cuts a stream of bytes into frames. */
class FrameReader {
  private chunks: any[] = [];
  private size = 0;
  private parts: any[] = [];
  private partsSize = 0;

  constructor(private readonly frames: Frames) {}

  read(bytes: any): void {
    this.chunks.push(bytes);
    this.size += bytes.length;
    while (this.next());
  }

  /** The first bytes, in one piece. */
  private peek(size: number): any {
    if (this.chunks[0].length < size) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0];
  }

  private next(): boolean {
    if (this.size < 2) return false;
    const [first, second] = this.peek(2);
    const extra = (second & 127) < 126 ? 0 : (second & 127) === 126 ? 2 : 8;
    if (this.size < 2 + extra) return false;
    const head = this.peek(2 + extra);
    const length = extra === 0 ? second & 127 : extra === 2 ? head.readUInt16BE(2) : Number(head.readBigUInt64BE(2));
    if (length + this.partsSize > READ_BYTES_MAX) {
      this.frames.broken("a frame of the server is too large");
      return false;
    }
    if (this.size < 2 + extra + length) return false;
    const all = this.peek(2 + extra + length);
    this.size -= 2 + extra + length;
    const rest = all.subarray(2 + extra + length);
    this.chunks = rest.length ? [rest, ...this.chunks.slice(1)] : this.chunks.slice(1);
    this.frame(first, all.subarray(2 + extra, 2 + extra + length));
    return true;
  }

  private frame(first: number, payload: any): void {
    const opcode = first & 15;
    if (opcode === PING) return this.frames.ping(payload);
    if (opcode === PONG) return this.frames.pong();
    if (opcode === CLOSE) return this.frames.close(payload);
    this.parts.push(payload);
    this.partsSize += payload.length;
    if (!(first & 0x80)) return; // more parts follow
    const text = Buffer.concat(this.parts).toString();
    this.parts = [];
    this.partsSize = 0;
    this.frames.text(text);
  }
}
