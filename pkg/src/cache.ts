// Chunks kept in the Cache API under their digest, shared by all models of an origin.

/** What became of the cache in one load. */
export interface CacheStats {
  /** `unavailable`: there is no Cache API here. `full`: the quota was exceeded, and the rest was not kept. */
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

const NAME = "nearside-chunks-1";

/** Writes on their way at most; a slow disk must not fill the memory. */
const WRITES = 8;

const key = (digest: string) => `https://chunk.nearside.invalid/${digest}`;

/** A cache that never fails: what it cannot keep is fetched again. */
export class ChunkCache {
  #state: CacheStats["state"];
  #reason: string | undefined;
  #hits = 0;
  #misses = 0;
  #corrupt = 0;
  readonly #writes = new Set<Promise<void>>();

  private constructor(
    readonly store: Cache | undefined,
    state: CacheStats["state"],
    reason?: string,
  ) {
    this.#state = state;
    this.#reason = reason;
  }

  static async open(wanted: boolean): Promise<ChunkCache> {
    if (!wanted) return new ChunkCache(undefined, "off");
    if (typeof caches === "undefined") return new ChunkCache(undefined, "unavailable", "there is no Cache API here");
    try {
      return new ChunkCache(await caches.open(NAME), "on");
    } catch (thrown) {
      return new ChunkCache(undefined, "unavailable", String(thrown));
    }
  }

  get stats(): CacheStats {
    const reason = this.#reason === undefined ? {} : { reason: this.#reason };
    return { state: this.#state, hits: this.#hits, misses: this.#misses, corrupt: this.#corrupt, ...reason };
  }

  /** The chunk of that digest, proved by `check`; a corrupt one is thrown away. */
  async get(digest: string, length: number, check: (bytes: Uint8Array) => Promise<boolean>): Promise<Uint8Array | undefined> {
    if (!this.store) return undefined;
    try {
      const found = await this.store.match(key(digest));
      if (found) {
        const bytes = new Uint8Array(await found.arrayBuffer());
        if (bytes.length === length && (await check(bytes))) {
          this.#hits++;
          return bytes;
        }
        this.#corrupt++;
        await this.store.delete(key(digest));
      }
    } catch (thrown) {
      this.#give("failed", thrown);
    }
    this.#misses++;
    return undefined;
  }

  /** Keeps a proved chunk. The bytes are copied before this returns. */
  async put(digest: string, bytes: Uint8Array): Promise<void> {
    if (!this.store || this.#state !== "on") return;
    while (this.#writes.size >= WRITES) await Promise.race(this.#writes);
    const body = new Blob([bytes as Uint8Array<ArrayBuffer>]);
    const write = this.store
      .put(key(digest), new Response(body))
      .catch((thrown: unknown) => this.#give(isQuota(thrown) ? "full" : "failed", thrown))
      .finally(() => this.#writes.delete(write));
    this.#writes.add(write);
  }

  /** Settles when everything is written. */
  async settled(): Promise<void> {
    await Promise.all(this.#writes);
  }

  #give(state: "full" | "failed", thrown: unknown): void {
    this.#state = state;
    this.#reason = String(thrown);
  }
}

const isQuota = (thrown: unknown) => thrown instanceof Error && thrown.name === "QuotaExceededError";
