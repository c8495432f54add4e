/**
 * How long to wait before coming back, each client at another time, so that those cut off together do not return
 * together. Pure but for the two functions it is given.
 */
import { BACKOFF_MS, RETRY_AFTER_MAX_MS, RETRY_AFTER_SPREAD } from "./defaults.js";

export class Backoff {
  failures = 0;
  /** Gateways that refused and said for how long, by URL. */
  private readonly closed = new Map<string, number>();
  private next = 0;

  constructor(
    private readonly urls: readonly string[],
    private readonly random: () => number,
    private readonly now: () => number,
    private readonly windows: readonly [number, number] = BACKOFF_MS,
  ) {}

  /** Never asked before `afterMs`, and later by chance, as all that came together were told the same. */
  refused(url: string, afterMs: number): void {
    const spread = 1 + RETRY_AFTER_SPREAD * this.random();
    this.closed.set(url, this.now() + Math.min(afterMs, RETRY_AFTER_MAX_MS) * spread);
  }

  /** At random in a window that doubles when all gateways have failed; after a failure in its second half. */
  pause(): number {
    const [first, longest] = this.windows;
    const rounds = Math.floor(this.failures / this.urls.length);
    const window = Math.min(first * 2 ** Math.min(rounds, 16), longest);
    return window * (this.failures ? 0.5 + this.random() / 2 : this.random());
  }

  /** Where the next attempt goes, and after how long: to the gateway that may be asked first. */
  choose(pause: number): { url: string; pause: number } {
    const now = this.now();
    const places = this.urls.map((_, step) => (this.next + step) % this.urls.length);
    const opens = (place: number) => Math.max(pause, (this.closed.get(this.urls[place]!) ?? 0) - now);
    const place = places.reduce((best, other) => (opens(other) < opens(best) ? other : best));
    this.next = place + 1; // the next attempt goes elsewhere, whatever becomes of this one
    return { url: this.urls[place]!, pause: opens(place) };
  }
}
