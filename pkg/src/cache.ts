// Files of packages kept between visits under their digests, shared by all models of an origin. What is there is proved
// chunk by chunk when it is read, so that a file cut short, or damaged, costs the chunks that are wrong.
import type { Buffers } from "./buffers.js";
import { type PackageFile, chunkLength } from "./manifest.js";
import { Store, storeMissing } from "./store.js";

/** What became of the cache since the model was loaded. */
export interface CacheStats {
  /** `unavailable`: files cannot be kept here. `full`: the quota was exceeded, and the rest was not kept. */
  readonly state: "on" | "off" | "unavailable" | "full" | "failed";
  /** Chunks read from it. */
  readonly hits: number;
  /** Chunks that had to be fetched. */
  readonly misses: number;
  /** Chunks in it whose bytes did not match their digest any more. */
  readonly corrupt: number;
  /** Why it is not on. */
  readonly reason?: string;
}

/** Writes on their way at most; a slow disk must not fill the memory. */
const WRITES = 8;

/** A cache that never fails: what it cannot keep is fetched again. */
export class ChunkCache {
  readonly #store: Store | undefined;
  #state: CacheStats["state"];
  #reason: string | undefined;
  #hits = 0;
  #misses = 0;
  #corrupt = 0;
  readonly #lengths = new Map<string, Promise<number>>();
  readonly #writes = new Set<Promise<void>>();

  constructor(readonly wanted: boolean) {
    this.#reason = wanted ? storeMissing() : undefined;
    this.#state = !wanted ? "off" : this.#reason === undefined ? "on" : "unavailable";
    if (this.#state === "on") this.#store = new Store();
    this.#store?.start();
  }

  get stats(): CacheStats {
    const reason = this.#reason === undefined ? {} : { reason: this.#reason };
    return { state: this.#state, hits: this.#hits, misses: this.#misses, corrupt: this.#corrupt, ...reason };
  }

  /** A chunk of a file, proved by `check`. */
  async get(
    file: PackageFile,
    index: number,
    buffers: Buffers,
    check: (bytes: Uint8Array) => Promise<boolean>,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (!this.#store) return undefined;
    try {
      const at = index * file.chunk_size;
      const length = chunkLength(file, index);
      if ((await this.#length(this.#store, file)) >= at + length) {
        const bytes = await this.#store.read(file.sha256, at, buffers.take(length));
        if (bytes.length === length && (await check(bytes))) {
          this.#hits++;
          return bytes;
        }
        this.#corrupt++;
      }
    } catch (thrown) {
      this.#give(thrown);
    }
    this.#misses++;
    return undefined;
  }

  /** Keeps a proved chunk. The bytes are copied before this settles. */
  async put(file: PackageFile, index: number, bytes: Uint8Array): Promise<void> {
    while (this.#writes.size >= WRITES) await Promise.race(this.#writes);
    if (!this.#store || this.#state !== "on") return;
    const write: Promise<void> = this.#store
      .write(file.sha256, index * file.chunk_size, bytes)
      .catch((thrown: unknown) => this.#give(thrown))
      .finally(() => this.#writes.delete(write));
    this.#writes.add(write);
  }

  /** Lets go of what is open, when everything is written. The cache may be used again. */
  rest(): void {
    this.#store?.rest();
    this.#lengths.clear();
  }

  #length(store: Store, file: PackageFile): Promise<number> {
    let length = this.#lengths.get(file.sha256);
    if (!length) this.#lengths.set(file.sha256, (length = store.length(file.sha256)));
    return length;
  }

  #give(thrown: unknown): void {
    this.#state = thrown instanceof Error && thrown.name === "QuotaExceededError" ? "full" : "failed";
    this.#reason = String(thrown);
  }
}
