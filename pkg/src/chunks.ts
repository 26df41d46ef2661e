// A file of a package, chunk by chunk: from the cache or the source, each proved by its digest before anyone sees it.
import type { ChunkCache } from "./cache.js";
import type { Digest } from "./digest.js";
import { NearsideError, throwIfAborted } from "./errors.js";
import { type PackageFile, chunkLength } from "./manifest.js";
import { type Patience, Transient, backOff } from "./network.js";
import type { Source } from "./source.js";

/** Takes a proved chunk; `offset` is its place in the file. The bytes are the receiver's. */
export type Sink = (bytes: Uint8Array, offset: number) => void | Promise<void>;

/** What fetching needs to know. */
export interface Fetching {
  readonly source: Source;
  readonly cache: ChunkCache;
  readonly digest: Digest;
  readonly patience: Patience;
  readonly signal: AbortSignal | undefined;
  /** Called with the bytes of each proved chunk. */
  readonly progress: (bytes: number) => void;
  readonly slots: Slots;
}

/** Streams of one file at once, and bytes that are worth another stream. */
const STREAMS = 4;
const SEGMENT = 4 << 20;

/** At most so many at once, first come first served. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(free: number) {
    this.#free = free;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}

/** Hands every chunk of `file` to `sink`, once, in any order. */
export async function fetchChunks(file: PackageFile, f: Fetching, sink: Sink): Promise<void> {
  const missing: number[] = [];
  const give = async (index: number, bytes: Uint8Array) => {
    throwIfAborted(f.signal);
    f.progress(bytes.length);
    await sink(bytes, index * file.chunk_size);
  };
  const cached = f.source.remote && f.cache.store !== undefined;
  let next = 0;
  const look = async () => {
    for (let i = next++; i < file.chunks.length; i = next++) {
      throwIfAborted(f.signal);
      const want = file.chunks[i] ?? "";
      const bytes = cached ? await f.cache.get(want, chunkLength(file, i), async (b) => (await f.digest(b)) === want) : undefined;
      if (bytes) await give(i, bytes);
      else missing.push(i);
    }
  };
  await Promise.all(Array.from({ length: cached ? 4 : 1 }, look));
  missing.sort((a, b) => a - b);
  await Promise.all(split(missing, file).map((s) => f.slots.use(() => segment(file, s, f, give))));
}

/** Chunk indices to be fetched by one stream: first, and one past the last. Those already proved are stepped over. */
interface Segment {
  next: number;
  readonly end: number;
}

function split(missing: readonly number[], file: PackageFile): Segment[] {
  const per = Math.max(Math.ceil(SEGMENT / file.chunk_size), Math.ceil(missing.length / STREAMS));
  const all: { next: number; end: number }[] = [];
  for (const i of missing) {
    const last = all.at(-1);
    if (last && last.end === i && last.end - last.next < per) last.end++;
    else all.push({ next: i, end: i + 1 });
  }
  return all;
}

async function segment(
  file: PackageFile,
  s: Segment,
  f: Fetching,
  give: (index: number, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  let fresh = false;
  for (let failures = 0; s.next < s.end; ) {
    const before = s.next;
    try {
      await attempt(file, s, f, give, fresh);
      return;
    } catch (thrown) {
      if (!(thrown instanceof Transient)) throw thrown;
      failures = s.next > before ? 0 : failures + 1;
      const wrong = thrown.error.code === "integrity";
      // A wrong digest is asked for once more, past every cache; a second wrong one is the server's word.
      if (failures >= (wrong ? 2 : f.patience.attempts)) throw thrown.error;
      fresh ||= wrong;
      if (!wrong) await backOff(failures + 1, f.signal);
    }
  }
}

async function attempt(
  file: PackageFile,
  s: Segment,
  f: Fetching,
  give: (index: number, bytes: Uint8Array) => Promise<void>,
  fresh: boolean,
): Promise<void> {
  const start = s.next * file.chunk_size;
  const end = Math.min(s.end * file.chunk_size, file.size);
  let chunk = new Uint8Array(chunkLength(file, s.next));
  let filled = 0;
  for await (const piece of f.source.read(file, start, end, f.signal, fresh)) {
    for (let at = 0; at < piece.length && s.next < s.end; ) {
      const n = Math.min(piece.length - at, chunk.length - filled);
      chunk.set(piece.subarray(at, at + n), filled);
      at += n;
      filled += n;
      if (filled < chunk.length) continue;
      const want = file.chunks[s.next] ?? "";
      const got = await f.digest(chunk);
      if (got !== want) {
        const place = `${f.source.name}: ${file.path}: chunk ${s.next}`;
        throw new Transient(
          new NearsideError("integrity", `SHA-256 is ${got}, not ${want}`, { place, help: "the server or a proxy altered it: publish the model again" }),
        );
      }
      if (f.source.remote) await f.cache.put(want, chunk);
      await give(s.next, chunk);
      s.next++;
      if (s.next < s.end) chunk = new Uint8Array(chunkLength(file, s.next));
      filled = 0;
    }
    // At the end of the file it reads on, so that a server that sends more is found out.
    if (s.next >= s.end && end < file.size) return;
  }
  if (s.next < s.end) throw new Transient(new NearsideError("network", "the file ended early", { place: `${f.source.name}: ${file.path}` }));
}

/** A whole small file. */
export async function fetchFile(file: PackageFile, f: Fetching): Promise<Uint8Array> {
  const all = new Uint8Array(file.size);
  await fetchChunks(file, f, (bytes, offset) => all.set(bytes, offset));
  return all;
}
