// What the client promises beyond right answers: recovery of a lost device, outputs that stay on the GPU, fair queues, a
// cache that may be full or corrupt, aborts in the middle of a run. In Chromium, on the classifier.
import type { Page } from "playwright-core";
import type { Browser } from "./lib/chromium.js";

export interface Client {
  readonly browser: Browser;
  /** An empty page of this origin is at /page/suite.html, the npm package at /pkg. */
  readonly origin: string;
  /** The classifier's address. */
  readonly model: string;
}

type Nearside = typeof import("nearside");
type Internals = typeof import("../../pkg/dist/internals.js");

/** The tests by name; each returns what is printed. */
export function clientTests(client: Client): Map<string, () => Promise<string>> {
  const tests = new Map<string, (page: Page) => Promise<string>>([
    ["a lost device is replaced, and the call repeated", lostDevice],
    ["outputs stay on the GPU and are read by both devices", stayOnGpu],
    ["twenty calls at once get their own answers", manyCalls],
    ["dispose ends a call under way", disposeDuring],
    ["an aborted run stops, and the next one is right", abortDuring],
    ["a full cache is done without", fullCache],
    ["a full cache makes room by what was written the longest ago", makesRoom],
    ["a corrupt chunk in the cache is fetched again, and no other", corruptChunk],
    ["a download that was cut short goes on where it ended", cutShort],
    ["two loads at once fill one cache", twoPages],
    ["on wasm a device is proved once, on WebGPU at every start", provedOnce],
    ["an aborted run on the GPU ends, and the next one is right", abortOnGpu],
    ["a flipped bit leaves nothing of it in the cache", flippedBit],
    ["an adapter with limits too small is refused before the weights are fetched", smallLimits],
    ["without WebGPU, webgpu is refused and auto takes wasm", noWebgpu],
    ["auto takes no software adapter, and says why", autoDevice],
  ]);

  async function lostDevice(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor }, { loseDevice }] = await modules();
      const model = await load(url, { device: "webgpu" });
      const x = new Tensor("float32", new Float32Array(3 * 224 * 224).fill(0.25), [1, 3, 224, 224]);
      const before = (await model.run({ input: x }))["probs"]?.data[0];
      await loseDevice();
      const after = await Promise.all([model.run({ input: x }), model.run({ input: x })]);
      const { recoveries } = model.stats();
      model.dispose();
      if (after.some((r) => r["probs"]?.data[0] !== before)) throw new Error("another answer after the loss");
      if (recoveries !== 1) throw new Error(`${recoveries} recoveries`);
      return "1 recovery for 2 calls, the same answers";
    }, client.model);
  }

  async function stayOnGpu(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor }] = await modules();
      const model = await load(url, { device: "webgpu" });
      const x = new Tensor("float32", new Float32Array(3 * 224 * 224).fill(0.25), [1, 3, 224, 224]);
      const { probs } = await model.run({ input: x });
      const stayed = (await model.run({ input: x }, { outputs: "gpu-buffer" }))["probs"];
      if (stayed?.location !== "gpu-buffer") throw new Error(`it is at ${stayed?.location}`);
      const read = await stayed.getData();
      if (read[7] !== probs?.data[7]) throw new Error("the GPU's tensor differs");
      const stats = model.stats().gpu;
      if (stats?.bindGroupsInRun !== 0) throw new Error("a run created bind groups");
      stayed.dispose();
      model.dispose();
      return `${stats.dispatches} dispatches`;
    }, client.model);
  }

  async function manyCalls(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor }] = await modules();
      const model = await load(url, { device: "wasm" });
      const make = (v: number) => new Tensor("float32", new Float32Array(3 * 224 * 224).fill(v / 10), [1, 3, 224, 224]);
      const alone: (number | bigint | undefined)[] = [];
      for (const v of [1, 2, 3]) alone.push((await model.run({ input: make(v) }))["probs"]?.data[0]);
      const all = await Promise.all(Array.from({ length: 20 }, (_, i) => model.run({ input: make((i % 3) + 1) })));
      const wrong = all.filter((r, i) => r["probs"]?.data[0] !== alone[i % 3]).length;
      model.dispose();
      if (wrong > 0) throw new Error(`${wrong} answers belong to other calls`);
      return "20 of 20";
    }, client.model);
  }

  async function disposeDuring(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor, NearsideError }] = await modules();
      const codes: string[] = [];
      for (const device of ["webgpu", "wasm"] as const) {
        const model = await load(url, { device });
        const run = model.run({ input: new Tensor("float32", new Float32Array(3 * 224 * 224), [1, 3, 224, 224]) });
        await new Promise((resolve) => setTimeout(resolve, 5));
        model.dispose();
        codes.push(await run.then(() => "an answer", (e: unknown) => (e instanceof NearsideError ? e.code : String(e))));
      }
      if (codes.some((c) => c !== "disposed")) throw new Error(codes.join(", "));
      return "disposed, on both devices";
    }, client.model);
  }

  async function abortDuring(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor, NearsideError }] = await modules();
      const x = new Tensor("float32", new Float32Array(3 * 224 * 224).fill(0.5), [1, 3, 224, 224]);
      for (const threads of [1, 2]) {
        const model = await load(url, { device: "wasm", threads });
        const want = (await model.run({ input: x }))["probs"]?.data[0];
        const stop = new AbortController();
        const run = model.run({ input: x }, { signal: stop.signal });
        setTimeout(() => stop.abort(), 3);
        const code = await run.then(() => "an answer", (e: unknown) => (e instanceof NearsideError ? e.code : String(e)));
        if (code !== "aborted") throw new Error(`${threads} threads: ${code}`);
        if ((await model.run({ input: x }))["probs"]?.data[0] !== want) throw new Error("another answer after the abort");
        model.dispose();
      }
      return "with 1 and 2 threads";
    }, client.model);
  }

  async function abortOnGpu(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, Tensor, NearsideError }] = await modules();
      const x = new Tensor("float32", new Float32Array(3 * 224 * 224).fill(0.5), [1, 3, 224, 224]);
      const model = await load(url, { device: "webgpu" });
      const want = (await model.run({ input: x }))["probs"]?.data[0];
      const code = (run: Promise<unknown>) => run.then(() => "an answer", (e: unknown) => (e instanceof NearsideError ? e.code : String(e)));
      const stop = new AbortController();
      // One is under way, one waits its turn, one comes too late.
      const calls = [1, 2].map(() => code(model.run({ input: x }, { signal: stop.signal })));
      setTimeout(() => stop.abort(), 1);
      const begin = performance.now();
      const codes = [...(await Promise.all(calls)), await code(model.run({ input: x }, { signal: stop.signal }))];
      const ms = performance.now() - begin;
      if (codes.some((c) => c !== "aborted")) throw new Error(codes.join(", "));
      if ((await model.run({ input: x }))["probs"]?.data[0] !== want) throw new Error("another answer after the abort");
      model.dispose();
      return `3 calls ended within ${ms.toFixed(0)} ms`;
    }, client.model);
  }

  async function flippedBit(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load, NearsideError }] = await modules();
      await kept.forget();
      const code = await load(url, { device: "wasm" }).then(
        () => "a model",
        (e: unknown) => (e instanceof NearsideError ? e.code : String(e)),
      );
      if (code !== "integrity") throw new Error(code);
      const files = await kept.files();
      const manifest = (await (await fetch(`${url}manifest.json`)).json()) as { files: { sha256: string; chunk_size: number; chunks: string[] }[] };
      let chunks = 0;
      for (const [name, bytes] of files) {
        const file = manifest.files.find((f) => f.sha256 === name);
        if (!file) throw new Error(`${name} is no file of the package`);
        for (let at = 0; at < bytes.length; at += file.chunk_size, chunks++) {
          const digest = await crypto.subtle.digest("SHA-256", bytes.slice(at, at + file.chunk_size));
          const hex = Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
          if (hex !== file.chunks[at / file.chunk_size]) throw new Error(`${name} holds ${hex} at ${at}`);
        }
      }
      return `${chunks} chunks in ${files.length} files, all as their digests say`;
    }, `${client.origin}/fault/flip/`);
  }

  async function smallLimits(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      Object.defineProperty(GPUSupportedLimits.prototype, "maxStorageBufferBindingSize", { get: () => 1 << 20 });
      const [{ load, NearsideError }] = await modules();
      const error = await load(url, { device: "webgpu", cache: "none" }).then(
        () => undefined,
        (e: unknown) => e,
      );
      if (!(error instanceof NearsideError) || error.code !== "device-limit") throw new Error(String(error));
      const asked = performance.getEntriesByType("resource").filter((r) => r.name.includes("/weights/"));
      if (asked.length > 0) throw new Error(`${asked.length} files of weights were fetched`);
      const model = await load(url, { device: "auto", cache: "none" });
      const { kind } = model.device;
      model.dispose();
      if (kind !== "wasm") throw new Error(`auto takes ${kind}`);
      return error.message;
    }, `${client.origin}/fault/none/`);
  }

  async function noWebgpu(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined });
      const [{ load, NearsideError }] = await modules();
      const error = await load(url, { device: "webgpu" }).then(
        () => undefined,
        (e: unknown) => e,
      );
      if (!(error instanceof NearsideError) || error.code !== "device-unavailable") throw new Error(String(error));
      const model = await load(url);
      const { device, refused } = model.stats();
      model.dispose();
      if (device.kind !== "wasm" || refused[0]?.code !== "device-unavailable") throw new Error(`auto takes ${device.kind}`);
      return error.message;
    }, client.model);
  }

  /** Runs `test` while the origin may keep so many bytes only; files of the sizes `before` are there. */
  async function withQuota(page: Page, quotaSize: number, before: readonly number[], test: (url: string) => Promise<string>): Promise<string> {
    const session = await page.context().newCDPSession(page);
    const origin = new URL(page.url()).origin;
    await page.evaluate(async (sizes) => {
      await kept.forget();
      for (const [i, size] of sizes.entries()) await kept.write(`old ${i}`, new Uint8Array(size));
    }, before);
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize });
    try {
      return await page.evaluate(test, client.model);
    } finally {
      await session.send("Storage.overrideQuotaForOrigin", { origin });
    }
  }

  async function fullCache(page: Page): Promise<string> {
    return withQuota(page, 6e6, [], async (url) => {
      const [{ load }] = await modules();
      const model = await load(url, { device: "wasm" });
      await kept.files();
      const { state, reason } = model.stats().cache;
      model.dispose();
      if (state !== "full") throw new Error(`the cache is ${state}: ${reason}`);
      return reason ?? "";
    });
  }

  async function makesRoom(page: Page): Promise<string> {
    return withQuota(page, 50e6, [24e6, 8e6], async (url) => {
      const [{ load }] = await modules();
      const model = await load(url, { device: "wasm" });
      const names = (await kept.files()).map(([name]) => name);
      const { state } = model.stats().cache;
      model.dispose();
      if (state !== "on") throw new Error(`the cache is ${state}`);
      if (names.includes("old 0")) throw new Error("the file that was written first is still there");
      const again = await load(url, { device: "wasm" });
      const { hits, misses } = again.stats().cache;
      again.dispose();
      if (misses > 0) throw new Error(`${misses} chunks were fetched again`);
      return `${hits} chunks where older files were`;
    });
  }

  async function corruptChunk(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load }] = await modules();
      await kept.forget();
      (await load(url, { device: "wasm" })).dispose();
      const [name, bytes] = await kept.largest();
      bytes[(3 << 20) + 9] = (bytes[(3 << 20) + 9] ?? 0) ^ 1;
      await kept.write(name, bytes);
      const model = await load(url, { device: "wasm" });
      const { corrupt, misses, hits } = model.stats().cache;
      model.dispose();
      if (corrupt !== 1 || misses !== 1) throw new Error(`${corrupt} corrupt, ${misses} fetched`);
      const after = await load(url, { device: "wasm" });
      if (after.stats().cache.misses !== 0) throw new Error("it was not mended");
      after.dispose();
      return `1 of ${hits + misses} fetched again, and kept`;
    }, client.model);
  }

  async function cutShort(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load }] = await modules();
      await kept.forget();
      (await load(url, { device: "wasm" })).dispose();
      const [name, bytes] = await kept.largest();
      const whole = Math.floor(bytes.length / 2 / (1 << 20));
      await kept.write(name, bytes.slice(0, (whole << 20) + 1000));
      const model = await load(url, { device: "wasm" });
      const { corrupt, misses } = model.stats().cache;
      model.dispose();
      const missing = Math.ceil(bytes.length / (1 << 20)) - whole;
      if (corrupt !== 0 || misses !== missing) throw new Error(`${corrupt} corrupt, ${misses} of ${missing} fetched`);
      return `${misses} chunks fetched after ${whole} that were there`;
    }, client.model);
  }

  async function twoPages(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load }] = await modules();
      await kept.forget();
      const both = await Promise.all([load(url, { device: "wasm" }), load(url, { device: "wasm" })]);
      await kept.files();
      const states = both.map((m) => m.stats().cache.state);
      for (const m of both) m.dispose();
      if (states.some((s) => s !== "on")) throw new Error(states.join(", "));
      const model = await load(url, { device: "wasm" });
      const { misses, corrupt } = model.stats().cache;
      model.dispose();
      if (misses + corrupt > 0) throw new Error(`${misses} fetched, ${corrupt} corrupt`);
      return "both kept what they fetched";
    }, client.model);
  }

  async function provedOnce(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load }] = await modules();
      await caches.delete("nearside-notes-1");
      const got: string[] = [];
      const proof = async (options: Parameters<typeof load>[1]) => {
        const model = await load(url, options);
        const { proof } = model.stats();
        model.dispose();
        // It is noted behind the caller's back.
        await new Promise((resolve) => setTimeout(resolve, 200));
        got.push(proof);
      };
      await proof({ device: "wasm", threads: 1 });
      await proof({ device: "wasm", threads: 1 });
      await proof({ device: "wasm", threads: 2 });
      await proof({ device: "wasm", threads: 1, cache: "none" });
      await proof({ device: "webgpu" });
      await proof({ device: "webgpu" });
      await proof({ device: "wasm", threads: 2 });
      const want = "golden remembered golden golden golden golden remembered";
      if (got.join(" ") !== want) throw new Error(got.join(" "));
      return want;
    }, client.model);
  }

  async function autoDevice(page: Page): Promise<string> {
    return page.evaluate(async (url) => {
      const [{ load }] = await modules();
      const model = await load(url);
      const { device, refused } = model.stats();
      model.dispose();
      const reason = refused[0]?.reason;
      if (device.kind !== "wasm" || reason === undefined) throw new Error(`it runs on ${device.kind}`);
      return reason;
    }, client.model);
  }

  const run = (test: (page: Page) => Promise<string>) => async () => {
    const { page, errors } = await client.browser.page();
    try {
      await page.addInitScript(() => {
        // Names that TypeScript would resolve at build time.
        const [index, gpu] = ["/pkg/index.js", "/pkg/internals.js"];
        window.modules = () => Promise.all([import(index), import(gpu)]) as Promise<[Nearside, Internals]>;
        // Files stay open while writes are on their way: what fails for that is tried again.
        const patiently = async <T>(work: () => Promise<T>): Promise<T> => {
          for (let attempt = 0; ; attempt++) {
            try {
              return await work();
            } catch (error) {
              if (attempt === 50) throw error;
              await new Promise((resolve) => setTimeout(resolve, 100));
            }
          }
        };
        const name = "nearside-files-1";
        const folder = async () => (await navigator.storage.getDirectory()).getDirectoryHandle(name, { create: true });
        const files = async (): Promise<[string, Uint8Array<ArrayBuffer>][]> => {
          const all: [string, Uint8Array<ArrayBuffer>][] = [];
          for await (const [name, handle] of (await folder()).entries()) {
            if (!(handle instanceof FileSystemFileHandle)) continue;
            // What can be opened for writing nobody else has open.
            await patiently(async () => (await handle.createWritable()).abort());
            all.push([name, new Uint8Array(await (await handle.getFile()).arrayBuffer())]);
          }
          return all;
        };
        window.kept = {
          files,
          forget: () => patiently(async () => (await navigator.storage.getDirectory()).removeEntry(name, { recursive: true }).catch((e: unknown) => {
            if (!(e instanceof DOMException && e.name === "NotFoundError")) throw e;
          })),
          largest: async () => (await files()).reduce((a, b) => (b[1].length > a[1].length ? b : a)),
          write: async (name, bytes) => {
            const handle = await (await folder()).getFileHandle(name, { create: true });
            const stream = await patiently(() => handle.createWritable());
            await stream.write(bytes);
            await stream.close();
          },
        };
      });
      await page.goto(`${client.origin}/page/suite.html`);
      return await test(page);
    } catch (error) {
      throw new Error([String(error), ...errors].join("\n"));
    } finally {
      await page.close();
    }
  };
  return new Map([...tests].map(([name, test]) => [name, run(test)]));
}

/** What the client kept in this browser, for tests to look at and to change. */
interface Kept {
  /** All files, when nothing writes into them any more. */
  files(): Promise<[name: string, bytes: Uint8Array<ArrayBuffer>][]>;
  largest(): Promise<[name: string, bytes: Uint8Array<ArrayBuffer>]>;
  write(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  forget(): Promise<void>;
}

declare global {
  interface Window {
    modules(): Promise<[Nearside, Internals]>;
    kept: Kept;
  }
  function modules(): Promise<[Nearside, Internals]>;
  const kept: Kept;
}
