// What is remembered of devices that gave the golden outputs.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeCaches, spoil } from "./caches.js";

const module = new URL("../internals.js", import.meta.url).href;
const { proofsOf } = (await import(module)) as typeof import("../dist/internals.js");

// Node 20 has none.
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "Engine/1.2" }, configurable: true });

const ONE = { kind: "wasm", variant: "relaxed-simd", threads: 1 } as const;
const TWO = { kind: "wasm", variant: "relaxed-simd + threads", threads: 2 } as const;
const GPU = { kind: "webgpu", threads: 1 } as const;

test("a proof holds for its package, variant and number of threads", async () => {
  fakeCaches();
  const first = await proofsOf("aa");
  assert.equal(first.has(ONE), false);
  await first.add(ONE);
  const again = await proofsOf("aa");
  assert.equal(again.has(ONE), true);
  assert.equal(again.has(TWO), false);
  assert.equal(again.has({ ...ONE, threads: 4 }), false);
  assert.equal((await proofsOf("ab")).has(ONE), false);
  await again.add(TWO);
  const third = await proofsOf("aa");
  assert.deepEqual([third.has(ONE), third.has(TWO)], [true, true]);
});

test("a GPU is proved every time", async () => {
  const { stored } = fakeCaches();
  await (await proofsOf("aa")).add(GPU);
  assert.equal(stored.size, 0);
  assert.equal((await proofsOf("aa")).has(GPU), false);
});

test("a proof ends with its engine and with time", async () => {
  const { stored } = fakeCaches();
  await (await proofsOf("aa")).add(ONE);
  const [text] = stored.values();
  const holds = async (change: (proof: { engine: string; at: number }) => void) => {
    const all = JSON.parse(text ?? "") as Record<string, { engine: string; at: number }>;
    for (const proof of Object.values(all)) change(proof);
    spoil(stored, JSON.stringify(all));
    return (await proofsOf("aa")).has(ONE);
  };
  const day = 24 * 3600 * 1000;
  assert.equal(await holds(() => undefined), true);
  assert.equal(await holds((p) => (p.at -= 29 * day)), true);
  assert.equal(await holds((p) => (p.at -= 31 * day)), false);
  // A clock that was ahead when the proof was noted.
  assert.equal(await holds((p) => (p.at += day)), false);
  assert.equal(await holds((p) => (p.engine += "x")), false);
});

test("what is no proof is not heeded", async () => {
  const { stored } = fakeCaches();
  await (await proofsOf("aa")).add(ONE);
  for (const text of ["", "[]", "null", "7", '{"relaxed-simd, 1 threads":null}', '{"relaxed-simd, 1 threads":{"at":"now"}}']) {
    spoil(stored, text);
    assert.equal((await proofsOf("aa")).has(ONE), false, text);
  }
});
