// ONNX models of one or two nodes, written as protobuf (onnx.proto).

type Field = readonly [number: number, value: number | string | Uint8Array];

function varint(n: number): number[] {
  const out: number[] = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
  out.push(n);
  return out;
}

function message(...fields: readonly Field[]): Uint8Array {
  const parts = fields.map(([number, value]) => {
    if (typeof value === "number") return Buffer.from([...varint(number * 8), ...varint(value)]);
    const bytes = typeof value === "string" ? Buffer.from(value) : value;
    return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
  });
  return Buffer.concat(parts);
}

const FLOAT = 1;

function port(name: string, dims: readonly (number | string)[]): Uint8Array {
  const shape = message(...dims.map((d): Field => [1, message(typeof d === "number" ? [1, d] : [2, d])]));
  return message([1, name], [2, message([1, message([1, FLOAT], [2, shape])])]);
}

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly output: string;
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: Readonly<Record<string, readonly (number | string)[]>>;
  readonly outputs: Readonly<Record<string, readonly (number | string)[]>>;
  readonly weights?: Readonly<Record<string, readonly [dims: readonly number[], data: Float32Array]>>;
  /** Weights in a file of their own. */
  readonly external?: Readonly<Record<string, readonly [dims: readonly number[], location: string]>>;
}

/** The bytes of a model of opset 17, all float32. */
export function onnx(g: Graph): Uint8Array {
  const fields: Field[] = g.nodes.map((n) => [
    1,
    message(...n.inputs.map((i): Field => [1, i]), [2, n.output], [3, `${n.op}_${n.output}`], [4, n.op]),
  ]);
  fields.push([2, "test"]);
  for (const [name, [dims, data]] of Object.entries(g.weights ?? {})) {
    const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    fields.push([5, message(...dims.map((d): Field => [1, d]), [2, FLOAT], [8, name], [9, raw])]);
  }
  for (const [name, [dims, location]] of Object.entries(g.external ?? {})) {
    const place: Field = [13, message([1, "location"], [2, location])];
    fields.push([5, message(...dims.map((d): Field => [1, d]), [2, FLOAT], [8, name], place, [14, 1])]);
  }
  for (const [name, dims] of Object.entries(g.inputs)) fields.push([11, port(name, dims)]);
  for (const [name, dims] of Object.entries(g.outputs)) fields.push([12, port(name, dims)]);
  return message([1, 8], [7, message(...fields)], [8, message([1, ""], [2, 17])]);
}

const K = 512;
const N = 1024;

/** `y = softmax(x · w)` for x: f32[n, 512], w: f32[512, 1024]: two chunks of weights, a symbolic dim. */
export function classifier(): Uint8Array {
  const w = Float32Array.from({ length: K * N }, (_, i) => ((i * 7919) % 257) / 257 - 0.5);
  return onnx({
    nodes: [
      { op: "MatMul", inputs: ["x", "w"], output: "t" },
      { op: "Softmax", inputs: ["t"], output: "y" },
    ],
    inputs: { x: ["n", K] },
    outputs: { y: ["n", N] },
    weights: { w: [[K, N], w] },
  });
}

/** What the classifier's row for `x` is, in double precision. */
export function classify(x: Float32Array): number[] {
  const t = new Float64Array(N);
  for (let k = 0; k < K; k++) {
    for (let n = 0; n < N; n++) t[n] = (t[n] ?? 0) + (x[k] ?? 0) * Math.fround((((k * N + n) * 7919) % 257) / 257 - 0.5);
  }
  const most = Math.max(...t);
  const e = [...t].map((v) => Math.exp(v - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
}

export const WIDTH = K;
