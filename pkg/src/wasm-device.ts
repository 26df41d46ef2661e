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

export class WasmDevice implements Device {
  readonly info: DeviceInfo;
  readonly memory: Memory;

  private constructor(
    readonly runtime: Runtime,
    readonly plan: Package,
    readonly signature: Signature,
    readonly map: CpuMap,
    readonly executor: Executor,
    variant: Variant,
  ) {
    this.info = { kind: "wasm", variant: variant.name, threads: executor.threads };
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
    const given = await code(variant.file);
    let module: WebAssembly.Module;
    try {
      module = given instanceof WebAssembly.Module ? given : await WebAssembly.compile(given as Uint8Array<ArrayBuffer>);
    } catch (cause) {
      // An engine that allows less memory than the module states says so here.
      if (cause instanceof Error && /memory size/.test(cause.message)) throw outOfMemory(cause);
      throw new NearsideError("invalid-package", `it does not compile: ${toError(cause).what}`, { place: variant.file.path, cause });
    }
    const executor = variant.threads > 1 ? await startThreads(module, map.memory, variant.threads) : await startSingle(module, map.kernels);
    return new WasmDevice(runtime, plan, signature, map, executor, variant);
  }

  write(pack: number, bytes: Uint8Array, offset: number): void {
    const pieces = guard(() => this.plan.cpuPieces(pack, offset, bytes.length) as Piece[]);
    const writes = pieces.map((p): Write => {
      const part = bytes.subarray(p.from, p.from + p.len);
      return { at: p.to, bytes: p.stored === p.dtype ? part : guard(() => this.runtime.convert(part, p.stored, p.dtype)) };
    });
    this.executor.write(writes);
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
    const done = await this.executor.run({ writes, reads }, signal);
    const outputs = signature.outputs.map((port, i) => {
      return new Tensor(port.type, viewOf(port.type, done.reads[i] ?? new ArrayBuffer(0)), bound.outputs[i] ?? []);
    });
    return { outputs, deviceMs: done.ms };
  }

  dispose(): void {
    this.executor.dispose();
  }
}
