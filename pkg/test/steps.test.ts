// Runs in steps: each kernel waits for its weights.
import assert from "node:assert/strict";
import { test } from "node:test";
import binaryen from "binaryen";

const module = new URL("../internals.js", import.meta.url).href;
const { Arrived, Host } = (await import(module)) as typeof import("../dist/internals.js");

test("a kernel is ready when all bytes before its last weight are there, in whatever order they came", () => {
  // Bytes of two packs that each of four kernels needs.
  const arrived = new Arrived([
    [0, 0],
    [100, 0],
    [200, 0],
    [200, 50],
  ]);
  assert.equal(arrived.kernels, 1);
  const steps: [pack: number, start: number, length: number, kernels: number][] = [
    [1, 0, 64, 1],
    [0, 128, 72, 1],
    [0, 0, 64, 1],
    [0, 64, 64, 4],
  ];
  for (const [pack, start, length, kernels] of steps) {
    arrived.add(pack, start, length);
    assert.equal(arrived.kernels, kernels, `pack ${pack} from ${start}`);
  }
});

/** Kernel k adds k + 1 to the word at 64, once a run: in the first of its pieces. */
const CODE = `(module
  (memory (export "memory") 1)
  (func (export "step") (param $kernel i32) (param $part i32) (param $parts i32)
    (if (i32.eqz (local.get $part)) (then
      (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.add (local.get $kernel) (i32.const 1)))))))
  (func (export "run") (param $part i32) (param $parts i32) (param $pieces i32) (result i32)
    (i32.store (i32.const 64) (local.get $pieces))
    (i32.const 0)))`;

async function host() {
  const text = binaryen.parseText(CODE);
  const started = await Host.start(new WebAssembly.Module(text.emitBinary() as Uint8Array<ArrayBuffer>), 3);
  text.dispose();
  return { started, sum: () => new Int32Array(started.memory.buffer, 64, 1)[0] ?? 0 };
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

test("a run in steps follows the weights as they are written", async () => {
  const { started, sum } = await host();
  started.write([], 1);
  const run = started.runInSteps();
  await soon();
  assert.equal(sum(), 1);
  started.write([{ at: 128, bytes: Uint8Array.of(1) }], 2);
  await soon();
  assert.equal(sum(), 3);
  started.write([], 3);
  assert.equal(await run, true);
  assert.equal(sum(), 6);
});

test("a first run calls each kernel more than once, later ones do not", async () => {
  const { started, sum } = await host();
  assert.equal(started.run(0, 1, true), true);
  assert.ok(sum() > 1);
  assert.equal(started.run(0, 1, false), true);
  assert.equal(sum(), 1);
});

test("a run that waits for weights can be stopped, and the next one runs", async () => {
  const { started, sum } = await host();
  const run = started.runInSteps();
  started.stop();
  assert.equal(await run, false);
  assert.equal(sum(), 0);
  started.write([], 3);
  assert.equal(await started.runInSteps(), true);
  assert.equal(sum(), 6);
});
