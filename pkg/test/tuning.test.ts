// Choices of shaders between visits.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeCaches, spoil } from "./caches.js";

// A module of the package that it does not export, by its place beside the compiled tests.
const module = new URL("../internals.js", import.meta.url).href;
const { remember, remembered, tuningKey } = (await import(module)) as typeof import("../dist/internals.js");

test("a choice is remembered for its code and adapter", async () => {
  fakeCaches();
  const key = tuningKey("ab12", "nvidia ampere");
  assert.notEqual(key, tuningKey("ab12", "apple m2"));
  assert.deepEqual(await remembered(key), new Uint32Array());
  await remember(key, Uint32Array.of(0, 1, 0));
  assert.deepEqual(await remembered(key), Uint32Array.of(0, 1, 0));
});

test("what is no choice is not heeded", async () => {
  const { stored } = fakeCaches();
  await remember("key", Uint32Array.of(1));
  for (const text of ["", "{}", "[0,-1]", "[0.5]", '["0"]', "[65536]", `[${"0,".repeat(1 << 16)}0]`]) {
    spoil(stored, text);
    assert.deepEqual(await remembered("key"), new Uint32Array(), text.slice(0, 20));
  }
});
