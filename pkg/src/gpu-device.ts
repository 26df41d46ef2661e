// The GPU, through wgpu in the runtime. Models share one device, so that the outputs of one can feed another.
import type { Device, DeviceInfo, Memory, OutputLocation, RunCounters, RunResult } from "./device.js";
import { NearsideError, throwIfAborted, toError } from "./errors.js";
import { findAdapter } from "./features.js";
import { type Manifest, type PackageFile, fileOf } from "./manifest.js";
import { type GpuNeeds, type Package, type PlainTensor, type Runtime, type Signature, guard } from "./runtime.js";
import { type GpuValue, Tensor, viewOf } from "./tensor.js";
import { remember, remembered, tuningKey } from "./tuning.js";
import type { GpuDevice as SharedDevice, GpuValue as WasmValue, Session } from "./wasm/runtime.js";

/** Bytes of proved weights that may wait for the pipelines to be compiled, before the download waits too. */
const WAITING = 64 << 20;

/** A call into the runtime that may fail later. */
async function later<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    throw toError(thrown);
  }
}

let shared: Promise<SharedDevice> | undefined;

/** The device that all models of this page run on; a new one where it was lost. */
async function sharedDevice(runtime: Runtime): Promise<SharedDevice> {
  const known = (shared ??= open(runtime));
  const device = await known;
  if (!device.isLost()) return device;
  // Of the callers that see the loss only the first opens another.
  if (shared === known) shared = open(runtime);
  return shared ?? open(runtime);
}

function open(runtime: Runtime): Promise<SharedDevice> {
  return later(runtime.openGpu(false)).catch((thrown: unknown) => {
    shared = undefined;
    throw thrown;
  });
}

/** Loses the shared device on purpose, as a driver's reset does. For tests of recovery. */
export async function loseDevice(): Promise<void> {
  (await shared)?.destroy();
}

/** A tensor that stayed on the GPU. */
class Value implements GpuValue {
  #freed = false;
  constructor(readonly value: WasmValue) {}

  async read(): Promise<ArrayBuffer> {
    const bytes = await later(this.value.read());
    return bytes.slice().buffer;
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.value.destroy();
    this.value.free();
  }
}

/** The choice of the fastest shaders. */
interface Choosing {
  readonly wgsl: string;
  /** Where the choice is kept. */
  readonly key: string | undefined;
  /** What was chosen; empty before. */
  choice: Uint32Array;
}

interface Chunk {
  readonly pack: number;
  readonly bytes: Uint8Array;
  readonly offset: number;
}

export class GpuDevice implements Device {
  readonly info: DeviceInfo;
  readonly memory: Memory;
  readonly streaming = false;
  readonly #session: Promise<Session>;
  readonly #choosing: Choosing | undefined;
  #started: Session | undefined;
  #waiting: Chunk[] = [];
  #waitingBytes = 0;
  #failed: unknown;
  #disposed = false;
  #tuning: string;

  private constructor(
    readonly runtime: Runtime,
    readonly signature: Signature,
    session: Promise<Session>,
    adapter: string,
    memory: Memory,
    choosing: Choosing | undefined,
  ) {
    this.info = { kind: "webgpu", threads: 1, adapter };
    this.memory = memory;
    this.#choosing = choosing;
    this.#tuning = choosing?.choice.length === 0 ? "not yet" : "not needed";
    this.#session = session.then((started) => {
      this.#started = started;
      if (this.#disposed) started.dispose();
      else this.#flush();
      return started;
    });
    this.#session.catch((thrown: unknown) => {
      this.#failed = thrown;
    });
  }

  /** Checks the device's limits, then allocates and compiles while the weights are fetched. */
  static async start(
    runtime: Runtime,
    plan: Package,
    signature: Signature,
    manifest: Manifest,
    read: (file: PackageFile) => Promise<Uint8Array>,
    keep: boolean,
  ): Promise<GpuDevice> {
    const code = fileOf(manifest, "wgsl");
    const needs = guard(() => plan.gpu() as GpuNeeds | undefined);
    if (!code || !needs) throw new NearsideError("device-unavailable", "the package has no code for the GPU", { help: 'load with device "wasm"' });
    const [device, found] = await Promise.all([sharedDevice(runtime), findAdapter()]);
    guard(() => device.check(plan));
    const wgsl = new TextDecoder().decode(await read(code));
    const weights = (plan.packs() as readonly { readonly size: number }[]).reduce((n, p) => n + p.size, 0);
    const memory = { weights, activations: needs.bytes - weights, total: needs.bytes };
    // On a software adapter the defaults are the fastest.
    const key = keep && !found.software ? tuningKey(code.sha256, found.name) : undefined;
    const choice = key === undefined ? new Uint32Array() : await remembered(key);
    const choosing = found.software ? undefined : { wgsl, key, choice };
    return new GpuDevice(runtime, signature, later(runtime.startSession(device, plan, wgsl, choice)), found.name, memory, choosing);
  }

  async write(pack: number, bytes: Uint8Array<ArrayBuffer>, offset: number, spare: (buffer: ArrayBuffer) => void): Promise<void> {
    if (this.#failed !== undefined) throw toError(this.#failed);
    if (this.#started) {
      this.#upload({ pack, bytes, offset });
      spare(bytes.buffer);
      return;
    }
    this.#waiting.push({ pack, bytes, offset });
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes > WAITING) await this.#session;
  }

  #flush(): void {
    for (const chunk of this.#waiting) this.#upload(chunk);
    this.#waiting = [];
  }

  #upload({ pack, bytes, offset }: Chunk): void {
    const session = this.#started;
    if (session) guard(() => session.upload(pack, offset, bytes));
  }

  async ready(): Promise<void> {
    await this.#session;
  }

  async run(inputs: readonly Tensor[], _bound: unknown, locations: readonly OutputLocation[], signal?: AbortSignal): Promise<RunResult> {
    const session = await this.#session;
    // A run is one submission: what has been submitted cannot be stopped, and only its outputs need not be read.
    throwIfAborted(signal);
    const feeds = new this.runtime.Feeds();
    for (const tensor of inputs) {
      const value = tensor.gpuValue;
      if (value instanceof Value) {
        feeds.gpu(value.value);
        continue;
      }
      const { buffer, byteOffset, byteLength } = tensor.data;
      guard(() => feeds.host(tensor.type, Uint32Array.from(tensor.dims), new Uint8Array(buffer, byteOffset, byteLength)));
    }
    const begin = performance.now();
    const stay = locations.some((l) => l === "gpu-buffer");
    const given: unknown = await later(session.run(feeds, stay));
    const deviceMs = performance.now() - begin;
    if (!stay) {
      const outputs = (given as readonly PlainTensor[]).map((t) => {
        const bytes = t.bytes.byteOffset === 0 && t.bytes.byteLength === t.bytes.buffer.byteLength ? t.bytes : t.bytes.slice();
        return new Tensor(t.type, viewOf(t.type, bytes.buffer as ArrayBuffer), t.dims);
      });
      return { outputs, deviceMs };
    }
    const outputs = (given as readonly WasmValue[]).map((v) => {
      const { type, dims } = v.describe() as Pick<PlainTensor, "type" | "dims">;
      return Tensor.onGpu(type, dims, new Value(v));
    });
    // Outputs that are wanted on the CPU are read from their buffers.
    await Promise.all(outputs.map((t, i) => (locations[i] === "gpu-buffer" ? undefined : t.getData(true))));
    return { outputs, deviceMs };
  }

  /** Times the shaders that the package offers on this adapter and takes the fastest. What cannot be timed stays as it is. */
  async tune(prove: () => Promise<void>): Promise<void> {
    const choosing = this.#choosing;
    if (!choosing || this.#tuning !== "not yet") return;
    this.#tuning = "under way";
    try {
      const session = await this.#session;
      choosing.choice = await later(session.tune(choosing.wgsl));
    } catch (thrown) {
      this.#tuning = toError(thrown).message;
      return;
    }
    await prove();
    if (choosing.key !== undefined) await remember(choosing.key, choosing.choice);
    this.#tuning = "done";
  }

  async distrust(): Promise<void> {
    const { key, choice } = this.#choosing ?? {};
    if (key !== undefined && choice) await remember(key, choice.map(() => 0));
  }

  counters(): RunCounters | undefined {
    const stats = this.#started?.stats() as RunCounters | undefined;
    return stats && { ...stats, tuning: this.#tuning };
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#waiting = [];
    this.#started?.dispose();
  }
}
