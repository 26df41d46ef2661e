// What the benchmark asks of every runtime.
import { parseNpy, type Npy } from "../../tests/browser/lib/npy.js";

/** A model as the benchmark's configuration states it; URLs are paths of the benchmark's server. */
export interface ModelSpec {
  readonly name: string;
  readonly onnx: string;
  /** The folder that `nearside build` wrote. */
  readonly package: string;
  /** Input name → .npy file. */
  readonly inputs: Readonly<Record<string, string>>;
  readonly output: string;
  /** What ONNX Runtime computes on the CPU for `output`, an .npy file. */
  readonly expected: string;
  /** Symbolic dims of the ONNX file, fixed for runtimes that can use that. */
  readonly dims: Readonly<Record<string, number>>;
}

export type Inputs = ReadonlyMap<string, Npy>;

/** A loaded model with its inputs. */
export interface Runner {
  /** One run from inputs in JavaScript memory to the output in JavaScript memory. */
  run(): Promise<Float32Array>;
  dispose(): Promise<void>;
}

/** Opens a model; what it does counts as time to the first answer. With `keep`, the runtime may keep files of its own. */
export type Open = (model: ModelSpec, inputs: Inputs, keep: boolean) => Promise<Runner>;

export async function fetchBytes(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

export async function fetchInputs(model: ModelSpec): Promise<Inputs> {
  const entries = Object.entries(model.inputs).map(async ([name, url]) => [name, parseNpy(await fetchBytes(url))] as const);
  return new Map(await Promise.all(entries));
}

export async function fetchExpected(model: ModelSpec): Promise<Float32Array> {
  const { data } = parseNpy(await fetchBytes(model.expected));
  if (!(data instanceof Float32Array)) throw new Error(`${model.expected} is not f32`);
  return data;
}
