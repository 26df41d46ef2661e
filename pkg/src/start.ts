// From a parsed plan to a device that holds the weights and has been proved. Also how a lost device is replaced.
import { Buffers } from "./buffers.js";
import type { ChunkCache } from "./cache.js";
import { type Fetching, Slots, fetchChunks, fetchFile } from "./chunks.js";
import type { Device, DeviceKind } from "./device.js";
import type { Digest } from "./digest.js";
import { NearsideError, abortable, aborted, throwIfAborted, toError } from "./errors.js";
import { GpuDevice } from "./gpu-device.js";
import { type Manifest, type PackageFile, fileOf } from "./manifest.js";
import type { Patience } from "./network.js";
import { proofsOf } from "./proof.js";
import { type Package, type PlainTensor, type Runtime, type Signature, guard } from "./runtime.js";
import type { Source } from "./source.js";
import { Tensor, viewOf } from "./tensor.js";
import { type Threads, WasmDevice } from "./wasm-device.js";

/** The stages of a load, in order. */
export type Stage = "manifest" | "download" | "compile" | "verify" | "ready";

export interface Progress {
  readonly stage: Stage;
  /** Bytes of the stage `download`, else 0 or 1 of 1. */
  readonly loaded: number;
  readonly total: number;
}

/** Everything that a device is started from; kept for starting it again. */
export interface Origin {
  readonly runtime: Runtime;
  readonly source: Source;
  readonly manifest: Manifest;
  readonly plan: Package;
  readonly signature: Signature;
  readonly digest: Digest;
  readonly patience: Patience;
  readonly threads: Threads;
  /** The SHA-256 of the manifest. */
  readonly identity: string;
  readonly cache: ChunkCache;
}

/** Times of a load, milliseconds. */
export interface LoadTimes {
  manifest: number;
  download: number;
  compile: number;
  verify: number;
  total: number;
}

/** Why a device is trusted: it gave the golden outputs now, did so on an earlier visit, or the package has none. */
export type Proof = "golden" | "remembered" | "none";

/** A device that has been started, filled and proved. */
export interface Started {
  readonly device: Device;
  readonly times: LoadTimes;
  /** Bytes of the package that were read, from the cache or the source. */
  readonly bytes: number;
  readonly proof: Proof;
  /** Runs the golden inputs again; fails where the outputs are not right. */
  prove(signal: AbortSignal): Promise<void>;
}

/** Files on their way at once, of those that are asked for in order. */
const STREAMS = 2;

/** How the files of one start are fetched. */
export function prepare(
  o: Pick<Origin, "source" | "digest" | "patience" | "cache">,
  signal: AbortSignal | undefined,
  progress: (bytes: number) => void,
): Fetching {
  const { source, digest, patience, cache } = o;
  return { source, digest, patience, signal, cache, progress, slots: new Slots(STREAMS), buffers: new Buffers() };
}

/** Starts a device, streams the weights into it, and proves it with the golden outputs. Fails without a trace. */
export async function startDevice(
  kind: DeviceKind,
  o: Origin,
  outer: AbortSignal | undefined,
  progress: (p: Progress) => void,
): Promise<Started> {
  const begin = performance.now();
  // Whatever fails ends everything else that is under way.
  const stop = new AbortController();
  const onAbort = () => stop.abort(outer?.reason);
  outer?.addEventListener("abort", onAbort, { once: true });
  const { signal } = stop;
  const times: LoadTimes = { manifest: 0, download: 0, compile: 0, verify: 0, total: 0 };
  let device: Device | undefined;
  try {
    throwIfAborted(outer);
    let loaded = 0;
    let total = 0;
    const fetching = prepare(o, signal, (bytes) => {
      loaded += bytes;
      if (total > 0) progress({ stage: "download", loaded, total });
    });
    const proofs = o.cache.wanted ? proofsOf(o.identity) : undefined;
    const packs = o.plan.packs() as readonly { readonly sha256: string; readonly size: number }[];
    const files = packs.map((p) => packFile(o, p.sha256, p.size));
    const code = (file: PackageFile) => codeOf(file, fetching);
    // Takes the memory before the weights are fetched: a device that is too small is told at once.
    const starting: Promise<Device> =
      kind === "wasm"
        ? WasmDevice.start(o.runtime, o.plan, o.signature, o.manifest, o.threads, code)
        : GpuDevice.start(o.runtime, o.plan, o.signature, o.manifest, (f) => fetchFile(f, fetching), o.cache.wanted);
    device = await abortable(starting, outer).catch((thrown: unknown) => {
      // What starts although nobody waits for it any more is ended.
      starting.then((late) => late.dispose()).catch(() => undefined);
      throw thrown;
    });
    const used = device;
    const known = await proofs;
    const remembered = known?.has(used.info) === true;
    const goldenFile = remembered ? undefined : fileOf(o.manifest, "golden");
    loaded = 0;
    total = files.reduce((n, f) => n + f.size, goldenFile?.size ?? 0);
    progress({ stage: "download", loaded, total });
    const compiled = used.ready().then(() => {
      times.compile = performance.now() - begin;
    });
    compiled.catch(() => undefined);
    const golden = goldenFile ? fetchFile(goldenFile, fetching) : Promise.resolve(undefined);
    const proven = async (signal: AbortSignal): Promise<void> => {
      const cases = await golden;
      try {
        if (cases) await prove(o, used, cases, signal);
      } catch (thrown) {
        if (toError(thrown).code === "golden-mismatch") await used.distrust?.();
        throw thrown;
      }
    };
    // A device that can follows the weights with the golden run, which is over soon after they are.
    const following = used.streaming ? compiled.then(() => proven(signal)) : undefined;
    following?.catch(() => undefined);
    const spare = (buffer: ArrayBuffer) => fetching.buffers.give(buffer);
    await Promise.all([golden, ...files.map((f, i) => fetchChunks(f, fetching, (bytes, offset) => used.write(i, bytes, offset, spare)))]);
    times.download = performance.now() - begin;
    progress({ stage: "compile", loaded: 0, total: 1 });
    await abortable(compiled, outer);
    progress({ stage: "compile", loaded: 1, total: 1 });
    const beginVerify = performance.now();
    progress({ stage: "verify", loaded: 0, total: 1 });
    await (following ?? proven(signal));
    progress({ stage: "verify", loaded: 1, total: 1 });
    throwIfAborted(outer);
    if (goldenFile) void known?.add(used.info);
    times.verify = performance.now() - beginVerify;
    times.total = performance.now() - begin;
    const proof = remembered ? "remembered" : goldenFile ? "golden" : "none";
    return { device, times, bytes: loaded, proof, prove: proven };
  } catch (thrown) {
    const error = outer?.aborted ? aborted(outer.reason) : toError(thrown, o.source.name);
    stop.abort(error);
    device?.dispose();
    throw error;
  } finally {
    outer?.removeEventListener("abort", onAbort);
  }
}

function packFile(o: Origin, sha256: string, size: number): PackageFile {
  const file = o.manifest.files.find((f) => f.role === "weights" && f.sha256 === sha256);
  if (!file || file.size !== size) {
    throw new NearsideError("invalid-package", `the manifest lists no weights ${sha256} of ${size} bytes, which the plan wants`, {
      place: o.source.name,
      help: "build the model again",
    });
  }
  return file;
}

async function codeOf(file: PackageFile, fetching: Fetching): Promise<WebAssembly.Module | Uint8Array> {
  return fetching.source.module?.(file) ?? (await fetchFile(file, fetching));
}

/** Runs the golden inputs and compares. */
async function prove(o: Origin, device: Device, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  const golden = guard(() => o.plan.golden(bytes), o.source.name);
  try {
    const cases = guard(() => golden.inputs() as readonly (readonly PlainTensor[])[]);
    for (const [i, plain] of cases.entries()) {
      const inputs = plain.map((t) => new Tensor(t.type, viewOf(t.type, t.bytes.slice().buffer), t.dims));
      const bound = guard(() => o.plan.bind(inputs.map((t) => t.dims)));
      const result = await device.run(inputs, bound, o.signature.outputs.map(() => "cpu"), signal);
      const got = result.outputs.map((t): PlainTensor => {
        const { buffer, byteOffset, byteLength } = t.data;
        return { type: t.type, dims: t.dims, bytes: new Uint8Array(buffer, byteOffset, byteLength) };
      });
      guard(() => golden.compare(i, got), device.info.adapter ?? device.info.kind);
    }
  } finally {
    golden.free();
  }
}
