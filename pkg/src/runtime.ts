// The runtime in WebAssembly: started once for all models. Its functions throw plain objects; here they become errors.
import { NearsideError, toError } from "./errors.js";
import initWasm, * as wasm from "./wasm/runtime.js";
import { files } from "./source.js";
import type { DataType } from "./tensor.js";

export type { GoldenCases, Package } from "./wasm/runtime.js";
export type Runtime = typeof wasm;

/** What `init` takes: a module that the host compiled, its bytes, or a response. */
export type RuntimeModule = WebAssembly.Module | BufferSource | Response | URL;

/** An input or output of a model. An axis is a number, or an expression over symbolic dims such as `seq`. */
export interface Port {
  readonly name: string;
  readonly type: DataType;
  readonly shape: readonly (number | string)[];
}

/** A model's inputs, outputs and symbolic dims with their bounds, both inclusive. */
export interface Signature {
  readonly name: string;
  readonly version: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly dims: readonly { readonly name: string; readonly min: number; readonly max: number }[];
}

/** The memory map of model.wasm, bytes. */
export interface CpuMap {
  readonly memory: number;
  readonly arena: number;
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly dims: number;
  /** For each kernel, the bytes of each pack, from its start on, that must be in place before it can run. */
  readonly needs: readonly (readonly number[])[];
}

/** What the GPU plan needs, bytes. */
export interface GpuNeeds {
  readonly bytes: number;
  readonly dispatches: number;
  readonly maxBufferSize: number;
  readonly maxStorageBinding: number;
  readonly maxStorageBindings: number;
  readonly maxWorkgroupSize: number;
  readonly maxWorkgroupStorage: number;
  readonly subgroups: boolean;
}

/** The dims' values and the outputs' shapes of one run. */
export interface Bound {
  readonly dims: readonly number[];
  readonly outputs: readonly (readonly number[])[];
}

/** A piece of a weight: `[from, from + len)` of a chunk, of type `stored`, goes to `to` as `dtype`. */
export interface Piece {
  readonly from: number;
  readonly len: number;
  readonly to: number;
  readonly stored: DataType;
  readonly dtype: DataType;
}

/** A tensor as it crosses. */
export interface PlainTensor {
  readonly type: DataType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
}

let started: Promise<Runtime> | undefined;

/** Starts the runtime from a module that the host compiled: edge workers, which forbid to compile, call this first. */
export function init(module: RuntimeModule): Promise<void> {
  started ??= start(module);
  return started.then(() => undefined);
}

/** The runtime, started on the first call. */
export function runtime(): Promise<Runtime> {
  started ??= start().catch((thrown: unknown) => {
    started = undefined;
    throw thrown;
  });
  return started;
}

async function start(module?: RuntimeModule): Promise<Runtime> {
  try {
    const own = new URL("./wasm/runtime_bg.wasm", import.meta.url);
    // fetch does not read files under Node.
    const from = module ?? (own.protocol === "file:" ? await files().readFile(own) : own);
    await initWasm({ module_or_path: from });
    return wasm;
  } catch (thrown) {
    throw new NearsideError("internal", `the runtime does not start: ${toError(thrown).what}`, {
      place: "runtime_bg.wasm",
      help: "serve the .wasm file beside the scripts, and allow 'wasm-unsafe-eval' in the Content-Security-Policy",
      cause: thrown,
    });
  }
}

/** The result of a call into the runtime, whose errors become {@link NearsideError}s. */
export function guard<T>(call: () => T, place?: string): T {
  try {
    return call();
  } catch (thrown) {
    throw toError(thrown, place);
  }
}
