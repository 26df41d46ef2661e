import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { NearsideError, Tensor, load } from "nearside";
import { build, inspect } from "nearside/compiler";
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
