// Where a package comes from: a server, a folder, memory.
import { NearsideError, toError } from "./errors.js";
import type { Digest } from "./digest.js";
import type { Manifest, PackageFile } from "./manifest.js";
import { type ByteReader, type Patience, readRange, readSmall } from "./network.js";

/** The files of a package, one by one: how a bundler emitted them, or what the compiler gave. */
export interface PackageFiles {
  /**
   * Path inside the package → where its bytes are: a URL, or the bytes themselves. `model.wasm` may be a compiled module,
   * where the host forbids to compile. `manifest.json` must be there, and everything that the chosen device reads.
   */
  readonly files: Readonly<Record<string, URL | Uint8Array | WebAssembly.Module>>;
}

/** A place that files are read from. */
export interface Source {
  /** Its name, for messages. */
  readonly name: string;
  /** The JSON of the manifest. */
  manifest(signal: AbortSignal | undefined): Promise<string>;
  /** Reads the bytes `[start, end)` of a file, and more where it cannot stop; one attempt. */
  read(file: PackageFile, start: number, end: number, signal: AbortSignal | undefined, fresh: boolean): Promise<ByteReader>;
  /** A module that the host compiled. */
  module?(file: PackageFile): WebAssembly.Module | undefined;
  /** Whether files from here are worth keeping between visits. */
  readonly remote: boolean;
}

const MAX_MANIFEST = 32 << 20;
const MAX_VERSION = 1 << 20;

/** The source at `from`: `http://host/NAME@VERSION` on a server of Nearside, a folder's URL, or files in memory. */
export function open(from: string | URL | PackageFiles, digest: Digest, patience: Patience): Source {
  if (typeof from === "object" && "files" in from) return new Listed(from, patience);
  let url: URL;
  try {
    url = new URL(from, typeof location === "undefined" ? undefined : location.href);
  } catch (cause) {
    throw new NearsideError("invalid-input", `"${String(from)}" is not a URL`, { place: "load", cause });
  }
  if (!["http:", "https:", "file:"].includes(url.protocol)) {
    throw new NearsideError("invalid-input", `a ${url.protocol} URL`, { place: "load", help: "give an http, https or file URL" });
  }
  const last = url.pathname.split("/").pop() ?? "";
  const at = decodeURIComponent(last).lastIndexOf("@");
  if (at <= 0 || url.protocol === "file:") return new Folder(folder(url), patience);
  const name = decodeURIComponent(last).slice(0, at);
  const version = decodeURIComponent(last).slice(at + 1);
  return new Server(new URL("./", url), name, version, digest, patience);
}

function folder(url: URL): URL {
  const clean = new URL(url);
  clean.hash = "";
  if (clean.pathname.endsWith("/manifest.json")) return new URL("./", clean);
  if (!clean.pathname.endsWith("/")) clean.pathname += "/";
  return clean;
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A piece of a file of `size` bytes, over HTTP or from disk. */
interface Piece {
  readonly url: URL;
  readonly start: number;
  readonly end: number;
  readonly size: number;
  readonly fresh: boolean;
}

function readUrl(p: Piece, signal: AbortSignal | undefined, patience: Patience): Promise<ByteReader> {
  if (p.url.protocol === "file:") return readDisk(p);
  return readRange({ ...p, url: p.url.href, signal, stallMs: patience.stallMs });
}

async function readWhole(url: URL, max: number, signal: AbortSignal | undefined, patience: Patience): Promise<Uint8Array> {
  if (url.protocol !== "file:") return readSmall(url.href, max, signal, patience);
  const fs = files();
  return fs.readFile(url).catch((cause: unknown) => {
    throw missing(url, cause);
  });
}

/** A folder, over HTTP or on disk. */
class Folder implements Source {
  readonly remote: boolean;
  constructor(
    readonly base: URL,
    readonly patience: Patience,
  ) {
    this.remote = base.protocol !== "file:";
  }

  get name(): string {
    return this.base.href;
  }

  async manifest(signal: AbortSignal | undefined): Promise<string> {
    return text(await readWhole(this.#url("manifest.json"), MAX_MANIFEST, signal, this.patience));
  }

  read(file: PackageFile, start: number, end: number, signal: AbortSignal | undefined, fresh: boolean): Promise<ByteReader> {
    return readUrl({ url: this.#url(file.path), start, end, size: file.size, fresh }, signal, this.patience);
  }

  #url(path: string): URL {
    const url = new URL(path, this.base);
    url.search = this.base.search;
    return url;
  }
}

class Server implements Source {
  readonly remote = true;
  constructor(
    readonly base: URL,
    readonly model: string,
    readonly version: string,
    readonly digest: Digest,
    readonly patience: Patience,
  ) {}

  get name(): string {
    return new URL(`${this.model}@${this.version}`, this.base).href;
  }

  async manifest(signal: AbortSignal | undefined): Promise<string> {
    const path = `v2/models/${encodeURIComponent(this.model)}/versions/${encodeURIComponent(this.version)}`;
    const url = new URL(path, this.base).href;
    const answer = parseJson(text(await readSmall(url, MAX_VERSION, signal, this.patience)), url);
    const wanted = typeof answer === "object" && answer !== null && "manifest" in answer ? answer.manifest : undefined;
    if (typeof wanted !== "string" || !/^[0-9a-f]{64}$/.test(wanted)) {
      throw new NearsideError("invalid-package", "the server names no manifest", { place: url, help: "is this a server of Nearside?" });
    }
    const at = new URL(`targets/${wanted}.manifest.json`, this.base).href;
    const bytes = await readSmall(at, MAX_MANIFEST, signal, this.patience);
    const got = await this.digest(bytes);
    if (got !== wanted) throw new NearsideError("integrity", `SHA-256 is ${got}, not ${wanted}`, { place: at });
    return text(bytes);
  }

  read(file: PackageFile, start: number, end: number, signal: AbortSignal | undefined, fresh: boolean): Promise<ByteReader> {
    const url = new URL(`blobs/sha256/${file.sha256}`, this.base).href;
    return readRange({ url, start, end, size: file.size, signal, stallMs: this.patience.stallMs, fresh });
  }
}

/** JSON, or an error that says what came instead. */
export function parseJson(json: string, place: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch (cause) {
    const start = json.trimStart().slice(0, 40);
    throw new NearsideError("invalid-package", `not JSON: it starts with ${JSON.stringify(start)}`, { place, cause });
  }
}

/** Files that are listed one by one. */
class Listed implements Source {
  readonly name = "the given files";
  readonly remote: boolean;
  constructor(
    readonly given: PackageFiles,
    readonly patience: Patience,
  ) {
    this.remote = Object.values(given.files).some((f) => f instanceof URL && f.protocol !== "file:");
  }

  async manifest(signal: AbortSignal | undefined): Promise<string> {
    const found = this.#find("manifest.json");
    return text(found instanceof URL ? await readWhole(found, MAX_MANIFEST, signal, this.patience) : this.#bytes("manifest.json"));
  }

  async read(file: PackageFile, start: number, end: number, signal: AbortSignal | undefined, fresh: boolean): Promise<ByteReader> {
    const url = this.#find(file.path);
    if (url instanceof URL) return readUrl({ url, start, end, size: file.size, fresh }, signal, this.patience);
    const bytes = this.#bytes(file.path);
    let at = start;
    return { take: async (length) => bytes.slice(at, (at += length)), close: () => undefined };
  }

  module(file: PackageFile): WebAssembly.Module | undefined {
    const found = this.#find(file.path);
    return found instanceof WebAssembly.Module ? found : undefined;
  }

  #find(path: string): URL | Uint8Array | WebAssembly.Module | undefined {
    return Object.hasOwn(this.given.files, path) ? this.given.files[path] : undefined;
  }

  #bytes(path: string): Uint8Array {
    const found = this.#find(path);
    if (found instanceof Uint8Array) return found;
    throw new NearsideError("not-found", "the file is not among those given", { place: path });
  }
}

/** A piece of a file on disk, under Node, Deno and Bun. */
async function readDisk(p: Piece): Promise<ByteReader> {
  const handle = await files()
    .open(p.url)
    .catch((cause: unknown) => {
      throw missing(p.url, cause);
    });
  const close = () => void handle.close().catch(() => undefined);
  const { size } = await handle.stat();
  if (size !== p.size) {
    close();
    throw new NearsideError("integrity", `${size} bytes, not ${p.size}`, { place: p.url.href });
  }
  let at = p.start;
  return {
    async take(length) {
      const bytes = new Uint8Array(length);
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await handle.read(bytes, filled, length - filled, at);
        if (bytesRead === 0) break;
        filled += bytesRead;
        at += bytesRead;
      }
      return bytes.subarray(0, filled);
    },
    close,
  };
}

function missing(at: URL, cause: unknown): NearsideError {
  const known = typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT";
  if (known) return new NearsideError("not-found", "there is no such file", { place: at.href, help: "check the folder; `nearside build` makes it" });
  return new NearsideError("io", toError(cause).what, { place: at.href, cause });
}

/** Node's file system, asked for in a way that bundlers do not follow: they would look for it in the browser. */
export function files(): typeof import("node:fs/promises") {
  const found = (globalThis as { readonly process?: Partial<NodeJS.Process> }).process?.getBuiltinModule?.("node:fs/promises");
  if (!found) throw new NearsideError("io", "file URLs are not read here", { help: "serve the folder over http" });
  return found;
}

/** Parses and checks a manifest. `check` is the runtime's; it throws what is wrong. */
export function parseManifest(json: string, place: string, check: (manifest: unknown) => void): Manifest {
  const parsed = parseJson(json, place);
  try {
    check(parsed);
  } catch (thrown) {
    const { code, what, place: inner, help } = toError(thrown);
    throw new NearsideError(code, what, { place: inner === undefined ? place : `${place}: ${inner}`, help });
  }
  // The runtime has just checked every field.
  return parsed as Manifest;
}
