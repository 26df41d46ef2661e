// A package made by hand: y = x · w for x, y: f32[n], n in 1..=N, weights of N elements, so that several chunks are needed.
import { createHash } from "node:crypto";
import binaryen from "binaryen";

export const N = 50_000;
const CHUNK = 65536;

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** postcard: the format of plans. */
class Writer {
  readonly out: number[] = [];
  uint(n: number): this {
    for (; n > 127; n = Math.floor(n / 128)) this.out.push((n % 128) | 128);
    this.out.push(n);
    return this;
  }
  int(n: number): this {
    return this.uint(n >= 0 ? n * 2 : -n * 2 - 1);
  }
  text(s: string): this {
    const bytes = new TextEncoder().encode(s);
    this.uint(bytes.length).out.push(...bytes);
    return this;
  }
  bytes(b: Uint8Array): this {
    this.out.push(...b);
    return this;
  }
  list<T>(all: readonly T[], each: (item: T) => void): this {
    this.uint(all.length);
    all.forEach(each);
    return this;
  }
}

const F32 = 0;

function plan(weights: Uint8Array, memory: number): Uint8Array {
  const w = new Writer();
  // A dim is a sum of terms: atoms (variant 0 is a symbol) and a factor.
  const port = (name: string) => w.text(name).uint(F32).uint(1).uint(1).uint(1).uint(0).text("n").int(1);
  w.text("tiny").text("1.0.0").list(["x"], port).list(["y"], port);
  w.uint(1).text("n").int(1).int(N);
  w.uint(1).bytes(Buffer.from(sha256(weights), "hex")).uint(weights.length);
  w.uint(1).text("w").uint(F32).uint(F32).uint(N).uint(0).uint(0);
  w.uint(1).uint(1).uint(W); // weights: Some(W)
  w.uint(1).uint(X).uint(1).uint(Y).uint(DIMS).uint(memory).uint(8 * N).uint(1).text("mul");
  w.uint(1).uint(1); // which needs one weight
  w.uint(0); // no GPU
  return Buffer.concat([Buffer.from("nearside"), Buffer.from([5, 0, 0, 0]), Buffer.from(w.out)]);
}

const DIMS = 64;
const W = 256;
const X = W + 4 * N;
const Y = X + 4 * N;

const CODE = `(module
  (memory (export "memory") PAGES PAGES)
  (func $step (export "step") (param $kernel i32) (param $part i32) (param $parts i32)
    (local $i i32)
    (local $end i32)
    (local.set $end (i32.mul (i32.load (i32.const ${DIMS})) (i32.const 4)))
    (if (local.get $part) (then (return)))
    (loop $next
      (f32.store offset=${Y} (local.get $i)
        (f32.mul (f32.load offset=${X} (local.get $i)) (f32.load offset=${W} (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $end)))))
  (func (export "run") (param $part i32) (param $parts i32) (param $pieces i32) (result i32)
    (call $step (i32.const 0) (local.get $part) (local.get $parts))
    (i32.const 0)))`;

const floats = (f: (i: number) => number, n: number) => Float32Array.from({ length: n }, (_, i) => f(i));
const bytesOf = (a: ArrayBufferView) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

function golden(wrong: boolean): Uint8Array {
  const w = new Writer();
  const f64 = (x: number) => w.bytes(bytesOf(Float64Array.of(x)));
  const tensor = (data: Float32Array) => w.uint(F32).uint(1).uint(data.length).uint(data.byteLength).bytes(bytesOf(data));
  f64(1e-6);
  f64(1e-6);
  f64(0);
  w.uint(1);
  w.uint(1);
  tensor(Float32Array.of(1, 2, 3));
  w.uint(1);
  tensor(Float32Array.of(0, 1, wrong ? 4 : 3));
  return Buffer.concat([Buffer.from("nsgolden"), Buffer.from([2, 0, 0, 0]), Buffer.from(w.out)]);
}

/** The weight of element i is i / 2. */
export const weight = (i: number): number => i / 2;

export interface Tiny {
  /** Path in the package → bytes, `manifest.json` among them. */
  readonly files: Record<string, Uint8Array>;
  readonly weights: string;
}

/** The package; `edit` changes files before the manifest is made of them. */
export function tiny(options: { wrongGolden?: boolean; memory?: number; edit?: (files: Record<string, Uint8Array>) => void } = {}): Tiny {
  const weights = bytesOf(floats(weight, N));
  const memory = options.memory ?? Y + 4 * N;
  const module = binaryen.parseText(CODE.replaceAll("PAGES", String(Math.ceil(memory / 65536))));
  const code = module.emitBinary();
  module.dispose();
  const path = `weights/${sha256(weights)}.bin`;
  const files: Record<string, Uint8Array> = {
    "model.plan": plan(weights, memory),
    "model.wasm": code,
    "golden.bin": golden(options.wrongGolden ?? false),
    [path]: weights,
  };
  options.edit?.(files);
  const roles: Record<string, string> = { "model.plan": "plan", "model.wasm": "wasm", "golden.bin": "golden", [path]: "weights" };
  const list = Object.entries(files).map(([name, bytes]) => {
    const chunks: string[] = [];
    for (let at = 0; at < bytes.length; at += CHUNK) chunks.push(sha256(bytes.subarray(at, at + CHUNK)));
    return { path: name, role: roles[name], size: bytes.length, sha256: sha256(bytes), chunk_size: CHUNK, chunks };
  });
  files["manifest.json"] = Buffer.from(JSON.stringify({ format: 1, name: "tiny", version: "1.0.0", inputs: [], outputs: [], files: list }));
  return { files, weights: path };
}
