// The one error type of the package.

/** What went wrong, as a class. The codes are stable: programs may match on them. */
export type ErrorCode =
  | "invalid-model"
  | "unsupported-op"
  | "unsupported-type"
  | "invalid-shape"
  | "dim-out-of-bounds"
  | "invalid-input"
  | "invalid-package"
  | "format-version"
  | "integrity"
  | "network"
  | "timeout"
  | "aborted"
  | "device-unavailable"
  | "device-limit"
  | "device-lost"
  | "golden-mismatch"
  | "quota-exceeded"
  | "disposed"
  | "overflow"
  | "io"
  | "not-found"
  | "conflict"
  | "internal";

export interface ErrorDetails {
  /** Where: a URL, an input, a node of the model. */
  readonly place?: string | undefined;
  /** What to do about it. */
  readonly help?: string | undefined;
  readonly cause?: unknown;
}

/** An error: what (`code`, `message`), where (`place`) and what to do (`help`). */
export class NearsideError extends Error {
  override readonly name = "NearsideError";
  readonly code: ErrorCode;
  /** What is wrong, without place and help. */
  readonly what: string;
  readonly place: string | undefined;
  readonly help: string | undefined;

  constructor(code: ErrorCode, what: string, details: ErrorDetails = {}) {
    const { place, help, cause } = details;
    const message = `${place === undefined ? "" : `${place}: `}${what} [${code}]${help === undefined ? "" : `\n  help: ${help}`}`;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.what = what;
    this.place = place;
    this.help = help;
  }
}

/** What crosses from WebAssembly and from workers, where classes do not. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly what: string;
  readonly place?: string | undefined;
  readonly help?: string | undefined;
}

function isPlain(value: unknown): value is PlainError {
  return typeof value === "object" && value !== null && "code" in value && "what" in value && typeof value.code === "string";
}

/** Any thrown value as a {@link NearsideError}; what was not expected becomes `internal`. */
export function toError(thrown: unknown, place?: string): NearsideError {
  if (thrown instanceof NearsideError) return thrown;
  if (isPlain(thrown)) {
    return new NearsideError(thrown.code, thrown.what, { place: thrown.place ?? place, help: thrown.help });
  }
  if (thrown instanceof Error && thrown.name === "AbortError") return aborted(thrown);
  const what = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return new NearsideError("internal", what, { place, cause: thrown });
}

/** For posting to another thread. */
export function toPlain(thrown: unknown): PlainError {
  const { code, what, place, help } = toError(thrown);
  return { code, what, place, help };
}

/** The error of a call that its `AbortSignal` ended. */
export function aborted(reason?: unknown): NearsideError {
  return new NearsideError("aborted", "the call was aborted", { cause: reason });
}

/** Throws where `signal` has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal.reason);
}

/** `work`, or an `aborted` error as soon as `signal` says so; the work itself goes on unheard. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(aborted(signal.reason));
    if (signal.aborted) {
      work.catch(() => undefined);
      stop();
      return;
    }
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
