// One case in the page: load its package on WebGPU, run it, compare with what ONNX says.
import { load, Tensor, type DataType } from "nearside";
import { numbers, view } from "./values.js";

interface Entry {
  readonly name: string;
  readonly dtype: DataType;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

interface Case {
  readonly atol: number;
  readonly rtol: number;
  readonly inputs: readonly Entry[];
  readonly outputs: readonly Entry[];
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response;
}

function part(data: ArrayBuffer, entry: Entry): ArrayBuffer {
  return data.slice(entry.offset, entry.offset + entry.bytes);
}

/** What is wrong with an output, if anything. */
function compare(test: Case, entry: Entry, want: ArrayBuffer, got: Tensor | undefined): string | undefined {
  if (!got) return `no output "${entry.name}"`;
  const show = (dtype: string, shape: readonly number[]): string => `${dtype} [${shape.join(", ")}]`;
  const [is, wanted] = [show(got.type, got.dims), show(entry.dtype, entry.shape)];
  if (is !== wanted) return `output "${entry.name}" is ${is} where ${wanted} is wanted`;
  const values = numbers(entry.dtype, got.data);
  const expected = numbers(entry.dtype, view(entry.dtype, want));
  for (const [i, w] of expected.entries()) {
    const g = values[i] ?? Number.NaN;
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
    if (!(Math.abs(g - w) <= test.atol + test.rtol * Math.abs(w))) {
      return `output "${entry.name}" is ${g} at element ${i} where ${w} is wanted`;
    }
  }
  return undefined;
}

/** Runs the case whose package is at `url`; what is wrong, or undefined. */
async function runCase(url: string): Promise<string | undefined> {
  const test = (await (await get(`${url}/case.json`)).json()) as Case;
  const data = await (await get(`${url}/case.bin`)).arrayBuffer();
  try {
    const model = await load(new URL(`${url}/`, location.href).href, { device: "webgpu", cache: "none" });
    try {
      const inputs = Object.fromEntries(
        test.inputs.map((entry) => [entry.name, new Tensor(entry.dtype, view(entry.dtype, part(data, entry)), entry.shape)]),
      );
      const outputs = await model.run(inputs);
      for (const entry of test.outputs) {
        const wrong = compare(test, entry, part(data, entry), outputs[entry.name]);
        if (wrong !== undefined) return wrong;
      }
      return undefined;
    } finally {
      model.dispose();
    }
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
}

declare global {
  interface Window {
    runCase: typeof runCase;
  }
}
window.runCase = runCase;
