// load(): from an address to a model that can be trusted.
import { ChunkCache } from "./cache.js";
import { fetchFile } from "./chunks.js";
import type { DeviceKind } from "./device.js";
import { type Digest, digestWith } from "./digest.js";
import { NearsideError, abortable, throwIfAborted, toError } from "./errors.js";
import { findAdapter } from "./features.js";
import { fileOf } from "./manifest.js";
import { Model, type Refused } from "./model.js";
import { PATIENCE, type Patience } from "./network.js";
import { type GpuNeeds, type Package, type Runtime, type Signature, guard, runtime } from "./runtime.js";
import { type PackageFiles, type Source, open, parseManifest } from "./source.js";
import { type Origin, type Progress, prepare, startDevice } from "./start.js";
import type { Tensor } from "./tensor.js";
import type { Threads } from "./wasm-device.js";

export interface LoadOptions {
  /** `auto` takes WebGPU where there is a GPU, never a software adapter, else WebAssembly. */
  readonly device?: "auto" | DeviceKind;
  /** Threads for WebAssembly; more than one needs a cross-origin isolated page. */
  readonly threads?: Threads;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: Progress) => void;
  /** Whether files are kept between visits, and that a device was proved. */
  readonly cache?: "cache" | "none";
  /** Milliseconds without data after which a download is tried again. */
  readonly stallTimeout?: number;
}

/**
 * Loads a compiled model: from `http://host/NAME@VERSION` on a server of Nearside, from the URL of a package's folder, or
 * from files given one by one.
 */
export async function load<
  Feeds extends { readonly [K in keyof Feeds]: Tensor } = Record<string, Tensor>,
  Results extends { readonly [K in keyof Results]: Tensor } = Record<string, Tensor>,
>(from: string | URL | PackageFiles, options: LoadOptions = {}): Promise<Model<Feeds, Results>> {
  checkOptions(options);
  throwIfAborted(options.signal);
  const patience = { ...PATIENCE, ...(options.stallTimeout === undefined ? {} : { stallMs: options.stallTimeout }) };
  // The runtime and the cache start while the manifest is fetched.
  const starting = runtime();
  starting.catch(() => undefined);
  const digest = digestWith(async (bytes) => (await starting).sha256(bytes));
  const source = open(from, digest, patience);
  const cache = new ChunkCache(options.cache !== "none" && source.remote);
  try {
    return await loadFrom(source, cache, starting, digest, patience, options);
  } finally {
    cache.rest();
  }
}

async function loadFrom<
  Feeds extends { readonly [K in keyof Feeds]: Tensor },
  Results extends { readonly [K in keyof Results]: Tensor },
>(
  source: Source,
  cache: ChunkCache,
  starting: Promise<Runtime>,
  digest: Digest,
  patience: Patience,
  options: LoadOptions,
): Promise<Model<Feeds, Results>> {
  const { signal } = options;
  const begin = performance.now();
  const progress = options.onProgress ?? (() => undefined);
  progress({ stage: "manifest", loaded: 0, total: 1 });
  const json = await abortable(source.manifest(signal), signal);
  const rt = await abortable(starting, signal);
  const identity = await digest(new TextEncoder().encode(json));
  const manifest = parseManifest(json, source.name, (m) => rt.checkManifest(m));
  const fetching = prepare({ source, digest, patience, cache }, signal, () => undefined);
  const file = fileOf(manifest, "plan");
  if (!file) throw new NearsideError("invalid-package", "the manifest lists no plan", { place: source.name });
  const bytes = await fetchFile(file, fetching);
  const plan = guard(() => new rt.Package(bytes), source.name);
  try {
    const signature = guard(() => plan.signature() as Signature);
    const origin: Origin = { runtime: rt, source, manifest, plan, signature, digest, patience, threads: options.threads ?? "auto", identity, cache };
    progress({ stage: "manifest", loaded: 1, total: 1 });
    const manifestMs = performance.now() - begin;
    const refused: Refused[] = [];
    for (const kind of await candidates(options.device ?? "auto", plan, refused)) {
      try {
        const started = await startDevice(kind, origin, signal, progress);
        started.times.manifest = manifestMs;
        started.times.total = performance.now() - begin;
        progress({ stage: "ready", loaded: 1, total: 1 });
        return new Model<Feeds, Results>(origin, started, refused);
      } catch (thrown) {
        const error = toError(thrown);
        refused.push({ device: kind, code: error.code, reason: error.message });
        if (options.device !== undefined && options.device !== "auto") throw error;
        // What has nothing to do with the device would only fail again.
        if (!DEVICE_ERRORS.has(error.code) || kind === "wasm") throw error;
      }
    }
    const reasons = refused.map((r) => `${r.device}: ${r.reason}`).join("; ");
    throw new NearsideError("device-unavailable", `no device runs this model: ${reasons}`, { place: source.name });
  } catch (thrown) {
    plan.free();
    throw toError(thrown, source.name);
  }
}

const DEVICE_ERRORS: ReadonlySet<string> = new Set([
  "device-unavailable",
  "device-limit",
  "device-lost",
  "golden-mismatch",
  "unsupported-type",
  "overflow",
  "internal",
]);

function checkOptions(o: LoadOptions): void {
  const wrong = (name: string, value: unknown, help: string) =>
    new NearsideError("invalid-input", `${name} is ${JSON.stringify(value)}`, { place: "load", help });
  if (o.device !== undefined && !["auto", "webgpu", "wasm"].includes(o.device)) {
    throw wrong("device", o.device, '"auto", "webgpu" or "wasm"');
  }
  if (o.threads !== undefined && o.threads !== "auto" && !(Number.isInteger(o.threads) && o.threads >= 1 && o.threads <= 256)) {
    throw wrong("threads", o.threads, '"auto" or a number of 1 or more');
  }
  if (o.cache !== undefined && o.cache !== "cache" && o.cache !== "none") throw wrong("cache", o.cache, '"cache" or "none"');
}

/** The devices to try, in order. What is not tried is put into `refused` with the reason. */
async function candidates(wanted: "auto" | DeviceKind, plan: Package, refused: Refused[]): Promise<DeviceKind[]> {
  if (wanted === "wasm") return ["wasm"];
  const refuse = (reason: string, code: Refused["code"] = "device-unavailable") => {
    if (wanted === "webgpu") throw new NearsideError(code, reason, { help: 'load with device "wasm", or "auto"' });
    refused.push({ device: "webgpu", code, reason });
    return ["wasm" as const];
  };
  if (guard(() => plan.gpu() as GpuNeeds | undefined) === undefined) return refuse("the package has no code for the GPU");
  const found = await findAdapter();
  if (!found.adapter) return refuse(found.reason);
  if (wanted === "webgpu") return ["webgpu"];
  if (found.software) return refuse(`the adapter (${found.name || "unnamed"}) computes on the CPU, where WebAssembly is faster`);
  return ["webgpu", "wasm"];
}

