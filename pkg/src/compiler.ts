// The compiler in WebAssembly: an ONNX file to the files of a package. It blocks its thread: call it in a worker.
import { type ErrorCode, NearsideError, toError } from "./errors.js";
import type { PlainTensor } from "./runtime.js";
import { files } from "./source.js";
import type { Tensor } from "./tensor.js";
import initWasm, * as wasm from "./wasm/compiler.js";

export { type ErrorCode, NearsideError };

/** The arguments of a build, as `nearside build` has them. */
export interface BuildOptions {
  /** The package's name. */
  readonly name: string;
  /** @defaultValue 1.0.0 */
  readonly version?: string;
  /** Bounds of symbolic dimensions, both inclusive; those not named are fixed at 1. */
  readonly dims?: Readonly<Record<string, readonly [min: number, max: number]>>;
  /** Inputs that become constants, by name, so that shapes may depend on them. */
  readonly constants?: Readonly<Record<string, Tensor>>;
  /** How float32 weights are stored. @defaultValue f32 */
  readonly weights?: "f32" | "f16";
  /** Whether operators are fused. @defaultValue true */
  readonly fused?: boolean;
  /** Inputs, by name, whose outputs every device must reproduce before it is trusted; made up where there are none. */
  readonly golden?: Readonly<Record<string, Tensor>>;
  /** Gives `length` bytes from `offset` of a file that the model names beside itself. */
  readonly external?: External;
}

export type External = (location: string, offset: number, length: number) => Uint8Array;

/** A compiled model. */
export interface Built {
  readonly summary: {
    readonly name: string;
    readonly version: string;
    readonly kernels: number;
    /** Missing where the model does not run on the GPU. */
    readonly dispatches: number | undefined;
    readonly weightsBytes: number;
    /** What the user should know. */
    readonly notes: readonly string[];
  };
  /** Path in the package → bytes; `load({ files })` takes them as they are. */
  readonly files: Readonly<Record<string, Uint8Array>>;
}

/** What an ONNX file consists of. */
export interface Contents {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Operators with their counts. */
  readonly ops: readonly (readonly [name: string, count: number])[];
  readonly parameters: number;
  /** Why the types of some values are not known, where they are not: a model may fit some sizes of its inputs only. */
  readonly untyped?: string;
}

let started: Promise<typeof wasm> | undefined;

/** Starts the compiler; `module` where the host compiled it. `build` and `inspect` start it by themselves. */
export function initCompiler(module?: WebAssembly.Module | BufferSource | Response | URL): Promise<typeof wasm> {
  started ??= start(module).catch((thrown: unknown) => {
    started = undefined;
    throw toError(thrown, "compiler_bg.wasm");
  });
  return started;
}

async function start(module?: WebAssembly.Module | BufferSource | Response | URL): Promise<typeof wasm> {
  const own = new URL("./wasm/compiler_bg.wasm", import.meta.url);
  // fetch does not read files under Node.
  const from = module ?? (own.protocol === "file:" ? await files().readFile(own) : own);
  await initWasm({ module_or_path: from });
  return wasm;
}

/** Compiles a model. */
export async function build(model: Uint8Array, options: BuildOptions): Promise<Built> {
  const { name, version = "1.0.0", dims = {}, weights = "f32", fused = true, external } = options;
  const compiler = await initCompiler();
  const [golden, constants] = await Promise.all([options.golden, options.constants].map(plain));
  return call(() => compiler.build(model, { name, version, dims, constants, weights, fused, golden }, external) as Built);
}

/** Tensors as they cross into WebAssembly. */
async function plain(tensors: Readonly<Record<string, Tensor>> | undefined): Promise<Record<string, PlainTensor> | undefined> {
  if (!tensors) return undefined;
  const all = Object.entries(tensors).map(async ([name, tensor]) => {
    const { buffer, byteOffset, byteLength } = await tensor.getData();
    return [name, { type: tensor.type, dims: tensor.dims, bytes: new Uint8Array(buffer, byteOffset, byteLength) }] as const;
  });
  return Object.fromEntries(await Promise.all(all));
}

/** Reads a model and says what it consists of. */
export async function inspect(model: Uint8Array, external?: External): Promise<Contents> {
  const compiler = await initCompiler();
  return call(() => compiler.inspect(model, external) as Contents);
}

function call<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    // A trap leaves the instance unusable.
    if (thrown instanceof WebAssembly.RuntimeError) started = undefined;
    if (thrown instanceof WebAssembly.RuntimeError && /memory|allocat|unreachable/.test(thrown.message)) {
      throw new NearsideError("device-limit", `the compiler stopped: ${thrown.message}`, {
        help: "the model may be too large for 4 GiB of memory: use the native nearside",
        cause: thrown,
      });
    }
    throw toError(thrown);
  }
}
