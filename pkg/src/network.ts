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

/**
 * Yields the bytes `[start, end)` in pieces as they come. A server that ignores ranges answers with the whole file: then
 * the bytes before `start` are dropped, and those after `end` are yielded as well.
 */
export async function* readRange(request: RangeRequest): AsyncGenerator<Uint8Array> {
  const { url, start, end, size, signal } = request;
  throwIfAborted(signal);
  const whole = start === 0 && (size === undefined || end === size);
  const stop = new AbortController();
  const onAbort = () => stop.abort(aborted(signal?.reason));
  signal?.addEventListener("abort", onAbort, { once: true });
  let recent = 0;
  let left = end - start;
  const check = () => {
    if (recent < Math.min(TRICKLE, left) || recent === 0) {
      const what = `fewer than ${TRICKLE} bytes in ${request.stallMs / 1000} s`;
      stop.abort(new Transient(new NearsideError("timeout", what, { place: url, help: "check the connection and the server" })));
    } else {
      recent = 0;
      timer = setTimeout(check, request.stallMs);
    }
  };
  let timer = setTimeout(check, request.stallMs);
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  try {
    const response = await fetch(url, {
      signal: stop.signal,
      ...(whole ? {} : { headers: { Range: `bytes=${start}-${end - 1}` } }),
      ...(request.fresh ? { cache: "reload" as const } : {}),
    });
    checkStatus(response, url);
    const ranged = response.status === 206;
    let skip = ranged ? 0 : start;
    const most = ranged ? end - start : (size ?? end);
    checkLength(response, most, size !== undefined, url);
    if (!response.body) return;
    reader = response.body.getReader();
    let got = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        reader = undefined;
        break;
      }
      recent += value.length;
      left -= value.length;
      got += value.length;
      if (got > most) throw failed(`the server sends more than the ${most} bytes that belong there`, url, "publish the model again");
      const from = Math.min(skip, value.length);
      skip -= from;
      if (from < value.length) yield value.subarray(from);
    }
    if (size !== undefined && got < most) {
      throw new Transient(failed(`the server sent ${got} of ${most} bytes`, url, "try again; if it stays, publish the model again"));
    }
  } catch (thrown) {
    const reason: unknown = stop.signal.aborted ? stop.signal.reason : thrown;
    if (reason instanceof NearsideError || reason instanceof Transient) throw reason;
    const what = reason instanceof Error ? reason.message : String(reason);
    throw new Transient(failed(`the request failed: ${what}`, url, "check the address, the connection, and the server's CORS headers", reason));
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    // A caller that stops early, and an error, end the download.
    reader?.cancel().catch(() => undefined);
  }
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
      const pieces: Uint8Array[] = [];
      const range = { url, start: 0, end: max, signal, stallMs: patience.stallMs };
      for await (const piece of readRange(range)) pieces.push(piece);
      return concat(pieces);
    } catch (thrown) {
      if (!(thrown instanceof Transient)) throw thrown;
      if (attempt >= patience.attempts) throw thrown.error;
      await backOff(attempt, signal);
    }
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
