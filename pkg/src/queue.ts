// Calls in the order in which they came, one at a time.
import { aborted } from "./errors.js";

interface Waiting {
  start(): void;
}

/** Runs one piece of work at a time, first come first served; what is aborted while it waits never starts. */
export class Queue {
  readonly #waiting: Waiting[] = [];
  #busy = false;

  /** Whether a call would have to wait. */
  get busy(): boolean {
    return this.#busy;
  }

  /** The result of `work` when its turn has come. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#turn(signal);
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next.start();
      else this.#busy = false;
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) return Promise.reject(aborted(signal.reason));
    if (!this.#busy) {
      this.#busy = true;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(aborted(signal?.reason));
      };
      const entry: Waiting = {
        start: () => {
          signal?.removeEventListener("abort", leave);
          resolve();
        },
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.push(entry);
    });
  }
}
