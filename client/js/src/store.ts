/**
 * An outbox in IndexedDB: publishes without an answer survive a reload, or a crash, and are sent by the next page of
 * the same origin, in order and under the same keys.
 */
import type { KeptPublish, OutboxStore } from "./client.js";

const DATABASE = "sluice";
const TABLE = "outbox";
/** What is older is not sent again: the server may have forgotten its key. */
const KEEP_MS = 3_600_000;

interface Row { owner: string; name: string; kept: KeptPublish }

/** `name`: one for each user, as a key belongs to its sender. */
export function indexedDbStore(name: string): OutboxStore {
  const owner = Array.from(crypto.getRandomValues(new Uint32Array(4)), part => part.toString(36)).join("");
  const opened = open();
  // Held as long as the page lives: whose lock is free has ended, and left its publishes to others.
  const mine = hold(owner);

  async function run<T>(mode: IDBTransactionMode, work: (rows: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const transaction = (await opened).transaction(TABLE, mode, { durability: "strict" });
    const request = work(transaction.objectStore(TABLE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  }

  return {
    async load() {
      await mine;
      const rows = await run("readonly", table => table.getAll() as IDBRequest<Row[]>);
      const places = await run("readonly", table => table.getAllKeys());
      const free = new Map<string, boolean>();
      const found = [];
      for (const [n, row] of rows.entries()) {
        const place = places[n]!;
        if (row.name !== name) continue;
        if (!free.has(row.owner)) free.set(row.owner, await hold(row.owner));
        if (!free.get(row.owner)) continue; // another tab lives, and sends them itself
        if ((row.kept.first ?? 0) < Date.now() - KEEP_MS) await run("readwrite", table => table.delete(place));
        else found.push({ place, kept: row.kept });
      }
      return found;
    },
    // Places count upwards: their order is that of the calls.
    put: kept => run("readwrite", table => table.add({ owner, name, kept })),
    remove: place => run("readwrite", table => table.delete(place)),
  };
}

/** Takes the lock of a page for as long as this one lives; whether it was free. */
function hold(owner: string): Promise<boolean> {
  return new Promise(resolve => {
    void navigator.locks.request(`${DATABASE} ${owner}`, { ifAvailable: true }, lock => {
      resolve(lock !== null);
      return lock ? new Promise(() => undefined) : undefined;
    });
  });
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
