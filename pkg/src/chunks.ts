// A file of a package, chunk by chunk: from the cache or the source, each proved by its digest before anyone sees it.
import type { Buffers } from "./buffers.js";
import type { ChunkCache } from "./cache.js";
import type { Digest } from "./digest.js";
import { NearsideError, throwIfAborted } from "./errors.js";
import { type PackageFile, chunkLength } from "./manifest.js";
import { type ByteReader, type Patience, Transient, backOff } from "./network.js";
import type { Source } from "./source.js";

/** Takes a proved chunk; `offset` is its place in the file. The bytes are the receiver's. */
export type Sink = (bytes: Uint8Array<ArrayBuffer>, offset: number) => void | Promise<void>;

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
  /** What chunks are read into; receivers give back what they need no more. */
  readonly buffers: Buffers;
}

/** Chunks that are on their way from being read to being given. */
const AHEAD = 4;

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

/**
 * Hands every chunk of `file` to `sink`, once, in any order. Missing chunks that follow each other come as one stream, a
 * file of which nothing is there as a plain request for the whole: HTTP caches keep these, and serve ranges badly.
 */
export async function fetchChunks(file: PackageFile, f: Fetching, sink: Sink): Promise<void> {
  const missing: number[] = [];
  const give = async (index: number, bytes: Uint8Array<ArrayBuffer>) => {
    throwIfAborted(f.signal);
    f.progress(bytes.length);
    await sink(bytes, index * file.chunk_size);
  };
  let next = 0;
  const look = async () => {
    for (let i = next++; i < file.chunks.length; i = next++) {
      throwIfAborted(f.signal);
      const want = file.chunks[i] ?? "";
      const bytes = await f.cache.get(file, i, f.buffers, async (b) => (await f.digest(b)) === want);
      if (bytes) await give(i, bytes);
      else missing.push(i);
    }
  };
  await Promise.all(Array.from({ length: AHEAD }, look));
  missing.sort((a, b) => a - b);
  await Promise.all(runs(missing).map((s) => f.slots.use(() => segment(file, s, f, give))));
}

/** Chunk indices to be fetched by one stream: first, and one past the last. Those already proved are stepped over. */
interface Segment {
  next: number;
  readonly end: number;
}

function runs(missing: readonly number[]): Segment[] {
  const all: { next: number; end: number }[] = [];
  for (const i of missing) {
    const last = all.at(-1);
    if (last?.end === i) last.end++;
    else all.push({ next: i, end: i + 1 });
  }
  return all;
}

async function segment(
  file: PackageFile,
  s: Segment,
  f: Fetching,
  give: (index: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>,
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
  give: (index: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>,
  fresh: boolean,
): Promise<void> {
  const end = Math.min(s.end * file.chunk_size, file.size);
  const reader = await f.source.read(file, s.next * file.chunk_size, end, f.signal, fresh);
  // Chunks are proved while the next ones come, and given in order.
  const given: Promise<void>[] = [];
  try {
    for (let i = s.next; i < s.end; i++) {
      const bytes = await reader.take(chunkLength(file, i), f.buffers.take(chunkLength(file, i)));
      if (bytes.length < chunkLength(file, i)) {
        throw new Transient(new NearsideError("network", "the file ended early", { place: `${f.source.name}: ${file.path}` }));
      }
      const next = proved(file, i, bytes, f, given.at(-1)).then(async () => {
        await give(i, bytes);
        s.next = i + 1;
      });
      next.catch(() => undefined);
      given.push(next);
      await given.at(-AHEAD);
    }
    await given.at(-1);
    if (end === file.size) await nothingMore(reader, file, f);
  } finally {
    reader.close();
    // The next attempt begins where this one's last chunk was given.
    await given.at(-1)?.catch(() => undefined);
  }
}

/** Settles when the chunk has the digest that it should have, is kept, and the one before it was given. */
async function proved(file: PackageFile, index: number, bytes: Uint8Array<ArrayBuffer>, f: Fetching, before: Promise<void> | undefined): Promise<void> {
  const want = file.chunks[index] ?? "";
  const got = await f.digest(bytes);
  await before;
  if (got !== want) {
    const place = `${f.source.name}: ${file.path}: chunk ${index}`;
    throw new Transient(
      new NearsideError("integrity", `SHA-256 is ${got}, not ${want}`, { place, help: "the server or a proxy altered it: publish the model again" }),
    );
  }
  await f.cache.put(file, index, bytes);
}

/** A server that sends more than the file is found out. */
async function nothingMore(reader: ByteReader, file: PackageFile, f: Fetching): Promise<void> {
  const { length } = await reader.take(1);
  if (length > 0) throw new NearsideError("network", "the file goes on after its end", { place: `${f.source.name}: ${file.path}` });
}

/** A whole small file. */
export async function fetchFile(file: PackageFile, f: Fetching): Promise<Uint8Array> {
  const all = new Uint8Array(file.size);
  await fetchChunks(file, f, (bytes, offset) => {
    all.set(bytes, offset);
    f.buffers.give(bytes.buffer);
  });
  return all;
}
