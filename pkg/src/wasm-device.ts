// The CPU: model.wasm in the variant that fits this engine.
import type { Device, DeviceInfo, Memory, OutputLocation, RunResult } from "./device.js";
import { NearsideError, toError } from "./errors.js";
import { type Executor, startSingle, startThreads } from "./executor.js";
import { cores, hasRelaxedSimd, hasSimd, hasThreads } from "./features.js";
import { type Write, outOfMemory } from "./host.js";
import { type Manifest, type PackageFile, fileOf } from "./manifest.js";
import { type Bound, type CpuMap, type Package, type Piece, type Runtime, type Signature, guard } from "./runtime.js";
import { Tensor, elementSize, viewOf } from "./tensor.js";

export type Threads = "auto" | number;

/** Never more threads than this by itself: past it, memory bandwidth is the limit. */
const AUTO_THREADS = 8;

interface Variant {
  readonly name: NonNullable<DeviceInfo["variant"]>;
  readonly file: PackageFile;
  readonly threads: number;
}

function choose(manifest: Manifest, wanted: Threads): Variant {
  if (!hasSimd()) {
    throw new NearsideError("device-unavailable", "this engine has no WebAssembly SIMD", { help: "update the browser" });
  }
  const threads = wanted === "auto" ? Math.min(cores(), AUTO_THREADS) : wanted;
  const relaxed = hasRelaxedSimd();
  const threaded = fileOf(manifest, "wasm-threads");
  if (threads > 1 && relaxed && hasThreads() && threaded) return { name: "relaxed-simd + threads", file: threaded, threads };
  const fast = fileOf(manifest, "wasm-relaxed");
  if (relaxed && fast) return { name: "relaxed-simd", file: fast, threads: 1 };
  const plain = fileOf(manifest, "wasm");
  if (plain) return { name: "simd128", file: plain, threads: 1 };
  throw new NearsideError("device-unavailable", "the package has no model.wasm for this engine", { help: "build the model again" });
}

async function compile(given: WebAssembly.Module | Uint8Array, place: string): Promise<WebAssembly.Module> {
  try {
    return given instanceof WebAssembly.Module ? given : await WebAssembly.compile(given as Uint8Array<ArrayBuffer>);
  } catch (cause) {
    // An engine that allows less memory than the module states says so here.
    if (cause instanceof Error && /memory size/.test(cause.message)) throw outOfMemory(cause);
    throw new NearsideError("invalid-package", `it does not compile: ${toError(cause).what}`, { place, cause });
  }
}

/** Which kernels have their weights, which come in any order. */
export class Arrived {
  /** Bytes of each pack that are there from its start on. */
  readonly #whole: number[] = [];
  /** Ends of what came ahead, by pack and start. */
  readonly #ahead = new Map<string, number>();
  #kernels = 0;

  constructor(readonly needs: CpuMap["needs"]) {
    this.#advance();
  }

  add(pack: number, start: number, length: number): void {
    this.#ahead.set(`${pack} ${start}`, start + length);
    for (;;) {
      const at = this.#whole[pack] ?? 0;
      const end = this.#ahead.get(`${pack} ${at}`);
      if (end === undefined) break;
      this.#ahead.delete(`${pack} ${at}`);
      this.#whole[pack] = end;
    }
    this.#advance();
  }

  get kernels(): number {
    return this.#kernels;
  }

  #advance(): void {
    while (this.needs[this.#kernels]?.every((bytes, pack) => (this.#whole[pack] ?? 0) >= bytes)) this.#kernels++;
  }
}

export class WasmDevice implements Device {
  readonly info: DeviceInfo;
  readonly memory: Memory;
  readonly streaming = true;
  readonly #arrived: Arrived;
  #ran = false;

  private constructor(
    readonly runtime: Runtime,
    readonly plan: Package,
    readonly signature: Signature,
    readonly map: CpuMap,
    readonly executor: Executor,
    variant: Variant,
  ) {
    this.info = { kind: "wasm", variant: variant.name, threads: executor.threads };
    this.#arrived = new Arrived(map.needs);
    executor.write([], this.#arrived.kernels).catch(() => undefined);
    this.memory = { weights: map.memory - map.arena, activations: map.arena, total: map.memory };
  }

  /** Compiles and starts model.wasm, which takes the whole memory of the model at once: before any weights are fetched. */
  static async start(
    runtime: Runtime,
    plan: Package,
    signature: Signature,
    manifest: Manifest,
    threads: Threads,
    code: (file: PackageFile) => Promise<WebAssembly.Module | Uint8Array>,
  ): Promise<WasmDevice> {
    const map = guard(() => plan.cpu() as CpuMap);
    const variant = choose(manifest, threads);
    const module = code(variant.file).then((given) => compile(given, variant.file.path));
    module.catch(() => undefined);
    const kernels = map.needs.length;
    const executor =
      variant.threads > 1 ? await startThreads(module, kernels, map.memory, variant.threads) : await startSingle(module, kernels);
    return new WasmDevice(runtime, plan, signature, map, executor, variant);
  }

  write(pack: number, bytes: Uint8Array<ArrayBuffer>, offset: number, spare: (buffer: ArrayBuffer) => void): void {
    const pieces = guard(() => this.plan.cpuPieces(pack, offset, bytes.length) as Piece[]);
    const writes = pieces.map((p): Write => {
      const part = bytes.subarray(p.from, p.from + p.len);
      return { at: p.to, bytes: p.stored === p.dtype ? part : guard(() => this.runtime.convert(part, p.stored, p.dtype)) };
    });
    this.#arrived.add(pack, offset, bytes.length);
    if (writes.every((w) => w.bytes.buffer !== bytes.buffer)) spare(bytes.buffer);
    const written = this.executor.write(writes, this.#arrived.kernels);
    // Where it fails, the next run says why.
    written.then((buffers) => buffers.forEach(spare)).catch(() => undefined);
  }

  async ready(): Promise<void> {
    // Compiled before anything was written.
  }

  async run(inputs: readonly Tensor[], bound: Bound, _locations: readonly OutputLocation[], signal?: AbortSignal): Promise<RunResult> {
    const { map, signature } = this;
    const writes: Write[] = await Promise.all(
      inputs.map(async (tensor, i) => {
        const data = await tensor.getData();
        return { at: map.inputs[i] ?? 0, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
      }),
    );
    if (bound.dims.length > 0) writes.push({ at: map.dims, bytes: new Uint8Array(Int32Array.from(bound.dims).buffer) });
    const reads = signature.outputs.map((port, i) => {
      const count = (bound.outputs[i] ?? []).reduce((n, d) => n * d, 1);
      return { at: map.outputs[i] ?? 0, length: count * elementSize(port.type) };
    });
    const early = this.#arrived.kernels < map.needs.length;
    const done = await this.executor.run({ writes, reads, early, first: !this.#ran }, signal);
    this.#ran = true;
    const outputs = signature.outputs.map((port, i) => {
      return new Tensor(port.type, viewOf(port.type, done.reads[i] ?? new ArrayBuffer(0)), bound.outputs[i] ?? []);
    });
    return { outputs, deviceMs: done.ms };
  }

  dispose(): void {
    this.executor.dispose();
  }
}
