/** Callbacks by name of event. One that throws harms nobody else: its error is reported as if nobody had caught it. */

export class Emitter<Events> {
  private readonly callbacks = new Map<keyof Events, Set<(event: any) => void>>();

  /** Calls back from now on; returns what ends that. */
  on<K extends keyof Events>(name: K, callback: (event: Events[K]) => void): () => void {
    const all = this.callbacks.get(name) ?? new Set();
    this.callbacks.set(name, all.add(callback));
    return () => all.delete(callback);
  }

  protected hears(name: keyof Events): boolean { return (this.callbacks.get(name)?.size ?? 0) > 0; }

  protected emit<K extends keyof Events>(name: K, event: Events[K]): void {
    for (const callback of this.callbacks.get(name) ?? []) {
      try {
        callback(event);
      } catch (error) {
        queueMicrotask(() => { throw error; });
      }
    }
  }
}
