import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { NearsideError, Tensor, load } from "nearside";
import { build, inspect } from "nearside/compiler";
import { npy, zip } from "./npz.js";
import { WIDTH, classifier, classify, onnx } from "./onnx.js";

const x = Float32Array.from({ length: WIDTH }, (_, i) => Math.sin(i));

function largestDifference(got: unknown, want: readonly number[]): number {
  assert(got instanceof Float32Array);
  return Math.max(...want.map((w, i) => Math.abs(w - (got[i] ?? Number.NaN))));
}

test("a model is compiled and run without leaving the process", async () => {
  const built = await build(classifier(), { name: "classifier", dims: { n: [1, 4] } });
  assert.equal(built.summary.name, "classifier");
  assert(built.files["model.wgsl"] && built.files["report.txt"]);
  const model = await load({ files: built.files }, { device: "wasm" });
  assert.deepEqual(model.signature.inputs, [{ name: "x", type: "float32", shape: ["n", WIDTH] }]);
  assert.deepEqual(model.signature.dims, [{ name: "n", min: 1, max: 4 }]);
  const two = new Float32Array(2 * WIDTH);
  two.set(x, WIDTH);
  const { y } = await model.run({ x: new Tensor("float32", two, [2, WIDTH]) });
  assert.deepEqual(y?.dims, [2, 1024]);
  assert(largestDifference(y.data.subarray(1024), classify(x)) < 1e-6);
  model.dispose();
});

test("the same model gives the same bytes", async () => {
  const options = { name: "classifier", dims: { n: [1, 4] as const } };
  assert.deepEqual(await build(classifier(), options), await build(classifier(), options));
});

test("half-precision weights are half as large, and close", async () => {
  const options = { name: "classifier", dims: { n: [1, 4] as const } };
  const half = await build(classifier(), { ...options, weights: "f16" });
  const whole = await build(classifier(), options);
  assert(half.summary.weightsBytes * 1.9 < whole.summary.weightsBytes);
  const model = await load({ files: half.files }, { device: "wasm" });
  const { y } = await model.run({ x: new Tensor("float32", x, [1, WIDTH]) });
  assert(largestDifference(y?.data, classify(x)) < 1e-3);
  model.dispose();
});

test("inspect says what a model consists of", async () => {
  const contents = await inspect(classifier());
  assert.deepEqual(contents.ops, [["MatMul", 1], ["Softmax", 1]]);
  assert.equal(contents.parameters, 512 * 1024);
});

test("a model whose sizes do not fit is shown, and refused with the dimensions to state", async () => {
  // Fits inputs of three rows only.
  const model = onnx({
    nodes: [{ op: "MatMul", inputs: ["x", "w"], output: "y" }],
    inputs: { x: [1, "rows"] },
    outputs: { y: [1, 2] },
    weights: { w: [[3, 2], new Float32Array(6)] },
  });
  const contents = await inspect(model);
  assert.deepEqual(contents.inputs, ["x: float32 [1, rows]"]);
  assert.match(contents.untyped ?? "", /rows/);
  await assert.rejects(build(model, { name: "m" }), (error: unknown) => {
    assert(error instanceof NearsideError);
    assert.equal(error.code, "invalid-shape");
    assert.match(error.help ?? "", /--dim rows=MIN..MAX/);
    return true;
  });
  await build(model, { name: "m", dims: { rows: [3, 3] } });
});

test("what is no model is refused with its reason", async () => {
  const unknown = onnx({ nodes: [{ op: "Frobnicate", inputs: ["x"], output: "y" }], inputs: { x: [1] }, outputs: { y: [1] } });
  const cyclic = onnx({
    nodes: [
      { op: "Add", inputs: ["x", "b"], output: "a" },
      { op: "Add", inputs: ["x", "a"], output: "b" },
    ],
    inputs: { x: [1] },
    outputs: { b: [1] },
  });
  const cases: [string, string, Uint8Array, string][] = [
    ["empty", "invalid-model", new Uint8Array(), "m"],
    ["garbage", "invalid-model", Buffer.from("this is not a model at all"), "m"],
    ["truncated", "invalid-model", classifier().subarray(0, 5000), "m"],
    ["unknown op", "unsupported-op", unknown, "m"],
    ["cyclic", "invalid-model", cyclic, "m"],
    ["a name that is none", "invalid-input", classifier(), "../up"],
  ];
  for (const [name, code, bytes, packageName] of cases) {
    await assert.rejects(build(bytes, { name: packageName }), (e) => {
      assert(e instanceof NearsideError, `${name}: ${String(e)}`);
      assert.equal(e.code, code, `${name}: ${e.message}`);
      return true;
    });
  }
});

const CLI = fileURLToPath(new URL("../cli.js", import.meta.url));

function nearside(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [CLI, ...args], (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err }));
  });
}

test("npx nearside builds a package that loads from disk, and leaves nothing half-written", async () => {
  const folder = await mkdtemp(join(tmpdir(), "nearside-cli-"));
  try {
    const file = join(folder, "Classifier.onnx");
    await writeFile(file, classifier());
    const out = join(folder, "package");
    const built = await nearside("build", file, "-o", out, "--dim", "n=1..2", "--json");
    assert.equal(built.code, 0, built.err);
    const result = JSON.parse(built.out) as { name: string; version: string };
    assert.deepEqual([result.name, result.version], ["classifier", "1.0.0"]);
    assert((await readFile(join(out, "index.js"), "utf8")).includes('new URL("./model.wasm", import.meta.url)'));
    const model = await load(pathToFileURL(out), { device: "wasm" });
    const { y } = await model.run({ x: new Tensor("float32", x, [1, WIDTH]) });
    assert(largestDifference(y?.data, classify(x)) < 1e-6);
    model.dispose();
    assert.match((await nearside("inspect", file)).out, /MatMul/);
    assert.match((await nearside("inspect", out)).out, /dimension n/);
    await writeFile(join(folder, "bad.onnx"), "no model");
    const cases: [string, number, string[]][] = [
      ["no model", 3, ["build", join(folder, "bad.onnx"), "-o", join(folder, "bad")]],
      ["no such file", 5, ["build", join(folder, "none.onnx"), "-o", join(folder, "bad")]],
      ["a folder with other things", 6, ["build", file, "-o", folder]],
      ["no output", 2, ["build", file]],
      ["wrong bounds", 2, ["build", file, "-o", out, "--dim", "n=4..1"]],
      ["unknown option", 2, ["build", file, "--fast"]],
      ["unknown command", 2, ["fly", file]],
    ];
    for (const [name, code, args] of cases) assert.equal((await nearside(...args)).code, code, name);
    assert.deepEqual((await readdir(folder)).sort(), ["Classifier.onnx", "bad.onnx", "package"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("an input that is given at build time is part of the model", async () => {
  const model = onnx({
    nodes: [{ op: "Add", inputs: ["x", "w"], output: "y" }],
    inputs: { x: ["n"], w: ["n"] },
    outputs: { y: ["n"] },
  });
  const w = new Tensor("float32", [10, 20, 30], [3]);
  const built = await build(model, { name: "m", constants: { w } });
  const loaded = await load({ files: built.files }, { device: "wasm" });
  assert.deepEqual(loaded.signature.inputs, [{ name: "x", type: "float32", shape: [3] }]);
  const { y } = await loaded.run({ x: new Tensor("float32", [1, 2, 3], [3]) });
  assert.deepEqual(y?.data, Float32Array.of(11, 22, 33));
  loaded.dispose();
  await assert.rejects(build(model, { name: "m", constants: { v: w } }), /there is no input "v"/);

  const folder = await mkdtemp(join(tmpdir(), "nearside-constant-"));
  try {
    await writeFile(join(folder, "m.onnx"), model);
    await writeFile(join(folder, "w.npy"), npy("<f4", [3], Float32Array.of(10, 20, 30)));
    const built = (constant: string) => nearside("build", join(folder, "m.onnx"), "-o", join(folder, "out"), "--constant", constant);
    assert.equal((await built(`w=${join(folder, "w.npy")}`)).code, 0);
    const cases: [string, number][] = [
      ["w", 2],
      [`w=${join(folder, "none.npy")}`, 5],
      [`w=${join(folder, "m.onnx")}`, 2],
    ];
    for (const [constant, code] of cases) assert.equal((await built(constant)).code, code, constant);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("golden outputs are those of the given inputs", async () => {
  const folder = await mkdtemp(join(tmpdir(), "nearside-golden-"));
  try {
    const file = join(folder, "m.onnx");
    await writeFile(file, classifier());
    const given = npy("<f4", [1, WIDTH], x);
    const inputs: [string, Uint8Array][] = [
      ["stored", zip({ "x.npy": given })],
      ["compressed", zip({ "x.npy": given }, true)],
    ];
    const goldens: Uint8Array[] = [];
    for (const [name, bytes] of inputs) {
      await writeFile(join(folder, `${name}.npz`), bytes);
      const out = join(folder, name);
      const built = await nearside("build", file, "-o", out, "--golden", join(folder, `${name}.npz`));
      assert.equal(built.code, 0, built.err);
      goldens.push(await readFile(join(out, "golden.bin")));
      (await load(pathToFileURL(out), { device: "wasm" })).dispose();
    }
    const [stored, compressed] = goldens;
    assert.deepEqual(stored, compressed);
    assert(Buffer.from(stored ?? []).includes(Buffer.from(x.buffer)), "the inputs are in it");
    const wrong: [string, number, string, Uint8Array | undefined][] = [
      ["no such file", 5, "there is no such file", undefined],
      ["garbage", 2, "it has no directory", Buffer.from("no archive at all, but long enough for one")],
      ["cut off", 2, "npz archive", zip({ "x.npy": given }).subarray(0, 700)],
      ["another name", 2, 'no tensor "x"', zip({ "z.npy": given })],
      ["another type", 2, '"x" is float64 where float32 is wanted', zip({ "x.npy": npy("<f8", [1, 1], Float64Array.of(1)) })],
      ["a type that is none", 3, "elements of type <c8", zip({ "x.npy": npy("<c8", [1], Float64Array.of(1)) })],
      ["another shape", 2, "", zip({ "x.npy": npy("<f4", [1, 3], Float32Array.of(1, 2, 3)) })],
      ["too few elements", 2, "bytes of data where", zip({ "x.npy": npy("<f4", [1, WIDTH], Float32Array.of(1)) })],
    ];
    for (const [name, code, text, bytes] of wrong) {
      const path = join(folder, "wrong.npz");
      await rm(path, { force: true });
      if (bytes) await writeFile(path, bytes);
      const { code: got, err } = await nearside("build", file, "-o", join(folder, "bad"), "--golden", path);
      assert.equal(got, code, `${name}: ${err}`);
      assert(err.includes(text), `${name}: ${err}`);
    }
    assert.deepEqual((await readdir(folder)).filter((f) => f.startsWith("bad")), []);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("external data is read beside the model, and nowhere else", async () => {
  const outer = await mkdtemp(join(tmpdir(), "nearside-external-"));
  const folder = join(outer, "model");
  const model = (location: string) =>
    onnx({
      nodes: [{ op: "Add", inputs: ["x", "w"], output: "y" }],
      inputs: { x: [2] },
      outputs: { y: [2] },
      external: { w: [[2], location] },
    });
  try {
    await mkdir(folder);
    const weights = new Uint8Array(Float32Array.of(1, 2).buffer);
    await writeFile(join(folder, "w.bin"), weights);
    await writeFile(join(folder, "short.bin"), weights.subarray(0, 5));
    await writeFile(join(outer, "secret.bin"), weights);
    const cases: [string, number][] = [
      ["w.bin", 0],
      ["none.bin", 5],
      ["short.bin", 5],
      ["../secret.bin", 3],
      [join(outer, "secret.bin"), 3],
      ["..\\secret.bin", 3],
    ];
    for (const [location, code] of cases) {
      await writeFile(join(folder, "m.onnx"), model(location));
      const out = join(outer, "out");
      const built = await nearside("build", join(folder, "m.onnx"), "-o", out);
      assert.equal(built.code, code, `${location}: ${built.err}`);
      assert.deepEqual((await readdir(outer)).filter((f) => f.startsWith("out")), code === 0 ? ["out"] : [], location);
      await rm(out, { recursive: true, force: true });
    }
  } finally {
    await rm(outer, { recursive: true });
  }
});
