import assert from "node:assert/strict";
import { test } from "node:test";
import { NearsideError, Tensor, type TensorData } from "nearside";

const code = (f: () => unknown): string => {
  try {
    f();
  } catch (thrown) {
    assert(thrown instanceof NearsideError, String(thrown));
    return thrown.code;
  }
  return "none";
};

test("the constructor takes what ONNX Runtime's takes", () => {
  const cases: [string, Tensor, string, readonly number[], TensorData][] = [
    ["type, array, dims", new Tensor("float32", Float32Array.of(1, 2), [2, 1]), "float32", [2, 1], Float32Array.of(1, 2)],
    ["dims left out", new Tensor("int32", Int32Array.of(1, 2)), "int32", [2], Int32Array.of(1, 2)],
    ["numbers", new Tensor("float32", [1, 2.5], [2]), "float32", [2], Float32Array.of(1, 2.5)],
    ["numbers for int64", new Tensor("int64", [1, 2], [2]), "int64", [2], BigInt64Array.of(1n, 2n)],
    ["bigints", new Tensor("int64", [1n], [1]), "int64", [1], BigInt64Array.of(1n)],
    ["booleans", new Tensor("bool", [true, false], [2]), "bool", [2], Uint8Array.of(1, 0)],
    ["bool as bytes", new Tensor("bool", Uint8Array.of(1), []), "bool", [], Uint8Array.of(1)],
    ["half floats as bits", new Tensor("float16", Uint16Array.of(0x3c00), [1]), "float16", [1], Uint16Array.of(0x3c00)],
    ["array first", new Tensor(Float64Array.of(1), [1]), "float64", [1], Float64Array.of(1)],
    ["array alone", new Tensor([1, 2]), "float32", [2], Float32Array.of(1, 2)],
    ["booleans alone", new Tensor([true]), "bool", [1], Uint8Array.of(1)],
    ["pixels", new Tensor(Uint8ClampedArray.of(7)), "uint8", [1], Uint8Array.of(7)],
    ["bigints alone", new Tensor([3n]), "int64", [1], BigInt64Array.of(3n)],
    ["empty", new Tensor("float32", new Float32Array(0), [0, 3]), "float32", [0, 3], new Float32Array(0)],
  ];
  for (const [name, tensor, type, dims, data] of cases) {
    assert.equal(tensor.type, type, name);
    assert.deepEqual([...tensor.dims], [...dims], name);
    assert.deepEqual(tensor.data, data, name);
    assert.equal(tensor.location, "cpu", name);
    assert.equal(tensor.size, data.length, name);
  }
});

test("what does not fit is refused", () => {
  const cases: [string, () => unknown][] = [
    ["wrong length", () => new Tensor("float32", Float32Array.of(1, 2), [3])],
    ["negative dim", () => new Tensor("float32", Float32Array.of(1), [-1])],
    ["fractional dim", () => new Tensor("float32", Float32Array.of(1), [0.5])],
    ["wrong array", () => new Tensor("float32", Float64Array.of(1) as unknown as Float32Array, [1])],
    ["unknown type", () => new Tensor("float31" as "float32", Float32Array.of(1), [1])],
    ["fraction for int64", () => new Tensor("int64", [1.5], [1])],
    ["no data", () => new Tensor("float32", undefined as unknown as Float32Array)],
    ["mixed", () => new Tensor([1, true] as unknown as number[])],
    ["a string", () => new Tensor("float32", "abc" as unknown as Float32Array, [3])],
  ];
  for (const [name, make] of cases) assert.equal(code(make), "invalid-input", name);
});

test("a disposed tensor says so", async () => {
  const t = new Tensor([1]);
  assert.deepEqual(await t.getData(), Float32Array.of(1));
  t.dispose();
  t.dispose();
  assert.equal(t.location, "none");
  assert.equal(code(() => t.data), "disposed");
});

test("reshape keeps the data", () => {
  const t = new Tensor("float32", Float32Array.of(1, 2, 3, 4), [4]);
  assert.deepEqual([...t.reshape([2, 2]).dims], [2, 2]);
  assert.equal(code(() => t.reshape([3])), "invalid-input");
});
