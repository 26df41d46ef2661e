// HTTP: one range of one file, with every way a server can misbehave as a typed error.
import { NearsideError, aborted, throwIfAborted } from "./errors.js";

/** How patient the network layer is. */
export interface Patience {
  /** Milliseconds in which some data must come before an attempt is given up. */
  readonly stallMs: number;
  /** Attempts without progress before the error is thrown. */
  readonly attempts: number;
}

export const PATIENCE: Patience = { stallMs: 30_000, attempts: 4 };

/** Fewer bytes than this in one stall period count as none. */
const TRICKLE = 16 << 10;

/** Bytes that a file of unknown length is read by. */
const READ = 64 << 10;

/** An error that another attempt may get past. */
export class Transient extends Error {
  constructor(readonly error: NearsideError) {
    super(error.message);
  }
}

const failed = (what: string, place: string, help?: string, cause?: unknown) =>
  new NearsideError("network", what, { place, help, cause });

export interface RangeRequest {
  readonly url: string;
  readonly start: number;
  readonly end: number;
  /** The whole file's size, bytes; unknown for manifests, where `end` is the most that is read. */
  readonly size?: number;
  readonly signal: AbortSignal | undefined;
  readonly stallMs: number;
  /** Goes past the HTTP cache, after a digest did not match. */
  readonly fresh?: boolean;
}

/** Gives bytes in order. Whoever has one closes it. */
export interface ByteReader {
  /** The next `length` bytes, or fewer where they end, in `into` where it has this length. The array is the caller's. */
  take(length: number, into?: ArrayBuffer): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}

/** How many bytes are thrown away at a time where a server ignores ranges. */
const SKIP = 1 << 20;

/**
 * Reads the bytes `[start, end)`. A server that ignores ranges answers with the whole file: then the bytes before `start`
 * are dropped, and those after `end` can be read as well.
 */
export async function readRange(request: RangeRequest): Promise<ByteReader> {
  const reader = new RangeReader(request);
  try {
    await reader.open();
    return reader;
  } catch (thrown) {
    reader.close();
    throw thrown;
  }
}

class RangeReader implements ByteReader {
  readonly #stop = new AbortController();
  readonly #onAbort = () => this.#stop.abort(aborted(this.request.signal?.reason));
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pull: Pull | undefined;
  /** Bytes since the last look at the clock, bytes so far, bytes still to come, and the most that may. */
  #recent = 0;
  #got = 0;
  #left: number;
  #most: number;

  constructor(readonly request: RangeRequest) {
    this.#left = this.#most = request.end - request.start;
    request.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  async open(): Promise<void> {
    const { url, start, end, size, signal, fresh } = this.request;
    throwIfAborted(signal);
    this.#watch();
    const whole = start === 0 && (size === undefined || end === size);
    const response = await this.#typed(
      fetch(url, {
        signal: this.#stop.signal,
        ...(whole ? {} : { headers: { Range: `bytes=${start}-${end - 1}` } }),
        ...(fresh ? { cache: "reload" as const } : {}),
      }),
    );
    checkStatus(response, url);
    const ranged = response.status === 206;
    if (!ranged) this.#most = size ?? end;
    checkLength(response, this.#most, size !== undefined, url);
    this.#pull = response.body ? pull(response.body) : undefined;
    for (let skip = ranged ? 0 : start; skip > 0; ) {
      const { length } = await this.take(Math.min(skip, SKIP));
      if (length === 0) break;
      skip -= length;
    }
  }

  async take(length: number, into?: ArrayBuffer): Promise<Uint8Array<ArrayBuffer>> {
    const buffer = into?.byteLength === length ? into : new ArrayBuffer(length);
    const bytes = this.#pull ? await this.#typed(this.#pull.take(buffer, (n) => this.#count(n))) : new Uint8Array();
    const { url, size } = this.request;
    if (bytes.length < length && size !== undefined && this.#got < this.#most) {
      throw new Transient(
        failed(`the server sent ${this.#got} of ${this.#most} bytes`, url, "try again; if it stays, publish the model again"),
      );
    }
    return bytes;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.request.signal?.removeEventListener("abort", this.#onAbort);
    // A caller that stops early, and an error, end the download.
    this.#pull?.cancel();
  }

  #count(bytes: number): void {
    this.#recent += bytes;
    this.#left -= bytes;
    this.#got += bytes;
    if (this.#got > this.#most) {
      throw failed(`the server sends more than the ${this.#most} bytes that belong there`, this.request.url, "publish the model again");
    }
  }

  /** Ends the download where too little comes. */
  #watch(): void {
    this.#recent = 0;
    this.#timer = setTimeout(() => {
      if (this.#recent >= Math.min(TRICKLE, this.#left) && this.#recent > 0) return this.#watch();
      const what = `fewer than ${TRICKLE} bytes in ${this.request.stallMs / 1000} s`;
      const help = "check the connection and the server";
      this.#stop.abort(new Transient(new NearsideError("timeout", what, { place: this.request.url, help })));
    }, this.request.stallMs);
  }

  /** The result of a call to the network, with its errors made ours. */
  async #typed<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (thrown) {
      const reason: unknown = this.#stop.signal.aborted ? this.#stop.signal.reason : thrown;
      if (reason instanceof NearsideError || reason instanceof Transient) throw reason;
      const what = reason instanceof Error ? reason.message : String(reason);
      const help = "check the address, the connection, and the server's CORS headers";
      throw new Transient(failed(`the request failed: ${what}`, this.request.url, help, reason));
    }
  }
}

/** A body that is read in lengths of the caller's choice. */
interface Pull {
  /** Fills `buffer`, or its start where the body ends; `count` is told of bytes as they come. */
  take(buffer: ArrayBuffer, count: (bytes: number) => void): Promise<Uint8Array<ArrayBuffer>>;
  cancel(): void;
}

function pull(body: ReadableStream<Uint8Array<ArrayBuffer>>): Pull {
  let bytewise: ReadableStreamBYOBReader;
  try {
    bytewise = body.getReader({ mode: "byob" });
  } catch {
    return pullPieces(body.getReader());
  }
  // The engine writes where the bytes are wanted, which spares a copy of each.
  return {
    async take(given, count) {
      const length = given.byteLength;
      let buffer = given;
      let filled = 0;
      while (filled < length) {
        const { done, value } = await bytewise.read(new Uint8Array(buffer, filled, length - filled));
        if (!value) return new Uint8Array();
        buffer = value.buffer;
        if (done) break;
        filled += value.length;
        count(value.length);
      }
      return new Uint8Array(buffer, 0, filled);
    },
    cancel: () => void bytewise.cancel().catch(() => undefined),
  };
}

/** For engines whose bodies come in pieces of their own choice only. */
function pullPieces(reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>): Pull {
  let piece = new Uint8Array();
  return {
    async take(buffer, count) {
      const bytes = new Uint8Array(buffer);
      const { length } = bytes;
      let filled = 0;
      while (filled < length) {
        if (piece.length === 0) {
          const { done, value } = await reader.read();
          if (done) break;
          piece = value;
          count(value.length);
        }
        const n = Math.min(piece.length, length - filled);
        bytes.set(piece.subarray(0, n), filled);
        piece = piece.subarray(n);
        filled += n;
      }
      return bytes.subarray(0, filled);
    },
    cancel: () => void reader.cancel().catch(() => undefined),
  };
}

function checkStatus(response: Response, url: string): void {
  const { status } = response;
  if (status === 404 || status === 410) {
    throw new NearsideError("not-found", `the server answered ${status}`, { place: url, help: "check the model's name and version" });
  }
  if (status === 401 || status === 403) throw failed(`the server answered ${status}`, url, "check that you may read this model");
  if (status !== 200 && status !== 206) {
    const error = failed(`the server answered ${status}`, url, "try again later");
    if (status >= 500 || status === 408 || status === 429) throw new Transient(error);
    throw error;
  }
  if (response.headers.get("content-type")?.startsWith("text/html")) {
    throw failed("the server answered with an HTML page", url, "the address is probably not a model's: check it and the server's fallback page");
  }
}

function checkLength(response: Response, most: number, exact: boolean, url: string): void {
  const length = response.headers.get("content-length");
  if (length === null || response.headers.get("content-encoding") !== null) return;
  const n = Number(length);
  if (n > most) throw failed(`the server announces ${n} bytes where at most ${most} belong`, url, "publish the model again");
  if (exact && n < most) throw failed(`the server announces ${n} of ${most} bytes`, url, "publish the model again");
}

/** Waits before attempt `n`, counted from 1. */
export async function backOff(n: number, signal: AbortSignal | undefined): Promise<void> {
  const ms = Math.min(200 * 2 ** (n - 1), 3000) * (0.75 + Math.random() / 2);
  await new Promise<void>((resolve, reject) => {
    const done = () => {
      signal?.removeEventListener("abort", stop);
      resolve();
    };
    const timer = setTimeout(done, ms);
    const stop = () => {
      clearTimeout(timer);
      reject(aborted(signal?.reason));
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A small file of unknown length, at most `max` bytes. */
export async function readSmall(url: string, max: number, signal: AbortSignal | undefined, patience: Patience): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    try {
      const reader = await readRange({ url, start: 0, end: max, signal, stallMs: patience.stallMs });
      try {
        return await readToEnd(reader);
      } finally {
        reader.close();
      }
    } catch (thrown) {
      if (!(thrown instanceof Transient)) throw thrown;
      if (attempt >= patience.attempts) throw thrown.error;
      await backOff(attempt, signal);
    }
  }
}

async function readToEnd(reader: ByteReader): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const piece = await reader.take(READ);
    pieces.push(piece);
    if (piece.length < READ) return concat(pieces);
  }
}

/** All pieces as one array. */
export function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of pieces) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}
