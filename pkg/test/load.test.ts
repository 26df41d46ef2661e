import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { type LoadOptions, NearsideError, type PackageFiles, type Progress, Tensor, load } from "nearside";
import { type Fault, serve } from "./server.js";
import { N, type Tiny, tiny, weight } from "./tiny.js";

const all = tiny();

async function failure(work: Promise<unknown>): Promise<NearsideError> {
  try {
    await work;
  } catch (thrown) {
    assert(thrown instanceof NearsideError, String(thrown));
    return thrown;
  }
  throw new Error("it did not fail");
}

async function check(from: string | URL | PackageFiles, options: LoadOptions = {}): Promise<void> {
  const model = await load(from, { device: "wasm", ...options });
  try {
    assert.equal(model.signature.name, "tiny");
    assert.equal(model.device.kind, "wasm");
    const x = Float32Array.from({ length: N }, (_, i) => i % 7);
    const { y } = await model.run({ x: new Tensor("float32", x, [N]) });
    assert(y);
    assert.deepEqual(y.data, x.map((v, i) => v * Math.fround(weight(i))));
  } finally {
    model.dispose();
  }
}

test("loads from a server, a folder, a disk, memory", async () => {
  const server = await serve(all);
  const folder = await mkdtemp(join(tmpdir(), "nearside-test-"));
  try {
    await check(`${server.origin}/tiny@1.0.0`);
    await check(`${server.origin}/folder`);
    await check(new URL(`${server.origin}/folder/manifest.json`));
    await check({ files: all.files });
    await check({ files: Object.fromEntries(Object.keys(all.files).map((p) => [p, new URL(`${server.origin}/folder/${p}`)])) });
    for (const [path, bytes] of Object.entries(all.files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), bytes);
    }
    await check(pathToFileURL(folder));
    await writeFile(join(folder, all.weights), new Uint8Array(3));
    assert.equal((await failure(load(pathToFileURL(folder)))).code, "integrity");
    await rm(join(folder, all.weights));
    assert.equal((await failure(load(pathToFileURL(folder)))).code, "not-found");
  } finally {
    await server.close();
    await rm(folder, { recursive: true });
  }
});

test("progress goes through the stages in order and ends at the whole", async () => {
  const seen: Progress[] = [];
  await check({ files: all.files }, { onProgress: (p) => seen.push(p) });
  const stages = seen.map((p) => p.stage).filter((s, i, list) => s !== list[i - 1]);
  assert.deepEqual(stages, ["manifest", "download", "compile", "verify", "ready"]);
  const downloads = seen.filter((p) => p.stage === "download");
  assert.equal(downloads.at(-1)?.loaded, downloads.at(-1)?.total);
});

const isWeights = (path: string) => path.includes("weights/");

/** What a server does wrong, and what comes of it. Stalls are given up after 300 ms here. */
const faults: [string, string, Fault][] = [
  ["404 for the manifest", "not-found", (path, _, r) => path.endsWith("manifest.json") && !!r.writeHead(404).end()],
  ["404 for weights", "not-found", (path, _, r) => isWeights(path) && !!r.writeHead(404).end()],
  ["500 always", "network", (path, _, r) => isWeights(path) && !!r.writeHead(500).end()],
  ["403", "network", (path, _, r) => isWeights(path) && !!r.writeHead(403).end()],
  ["HTML for the manifest", "network", (path, _, r) => path.endsWith(".json") && !!r.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>")],
  ["HTML under another type", "invalid-package", (path, _, r) => path.endsWith(".json") && !!r.writeHead(200).end("<!doctype html>")],
  ["HTML for weights", "network", (path, _, r) => isWeights(path) && !!r.writeHead(200, { "content-type": "text/html" }).end("<html>")],
  ["announces too little", "network", (path, _, r) => isWeights(path) && !!r.writeHead(200, { "content-length": 10 }).end("0123456789")],
  ["announces too much", "network", (path, _, r) => isWeights(path) && !!r.writeHead(200, { "content-length": 4 * N + 1 }).end(new Uint8Array(4 * N + 1))],
  ["sends too little, chunked", "network", (path, _, r) => isWeights(path) && !!r.writeHead(200).end(new Uint8Array(7))],
  [
    "sends too much, chunked",
    "network",
    (path, _, r) => {
      if (!isWeights(path)) return false;
      r.writeHead(200).write(all.files[all.weights]);
      r.end("more");
      return true;
    },
  ],
  ["drops the connection", "network", (path, _, r) => isWeights(path) && !!r.destroy()],
  ["never answers", "timeout", isWeights],
  ["stalls in the middle", "timeout", (path, _, r) => isWeights(path) && r.writeHead(200).write(new Uint8Array(30000)) !== undefined],
  [
    "flips a bit",
    "integrity",
    (path, _, r) => {
      if (!isWeights(path)) return false;
      const bytes = (all.files[all.weights] ?? new Uint8Array()).slice();
      bytes[70000] = (bytes[70000] ?? 0) ^ 1;
      r.writeHead(200).end(bytes);
      return true;
    },
  ],
];

for (const [name, code, fault] of faults) {
  test(`a server that ${name} ends in ${code}`, async () => {
    const server = await serve(all, (path, n, r, q) => (path === "/folder/manifest.json" && !/manifest|HTML under/.test(name) ? false : fault(path, n, r, q)));
    try {
      const error = await failure(load(`${server.origin}/folder/`, { stallTimeout: 300 }));
      assert.equal(error.code, code, error.message);
      assert(error.place?.includes(server.origin), error.message);
    } finally {
      await server.close();
    }
  });
}

test("what fails once is asked for again, from the last proved chunk", async () => {
  const bytes = all.files[all.weights] ?? new Uint8Array();
  const cases: [string, Fault][] = [
    ["500", (path, n, r) => isWeights(path) && n === 1 && !!r.writeHead(500).end()],
    ["drop", (path, n, r) => isWeights(path) && n === 1 && !!r.destroy()],
    ["flipped bit", (path, n, r) => isWeights(path) && n === 1 && !!r.writeHead(200).end(bytes.map((b, i) => (i === 100 ? b ^ 4 : b)))],
    [
      "drop in the middle",
      (path, n, r) => {
        if (!isWeights(path) || n > 1) return false;
        r.writeHead(200).write(bytes.subarray(0, 70000), () => setTimeout(() => r.destroy(), 20));
        return true;
      },
    ],
  ];
  for (const [name, fault] of cases) {
    const server = await serve(all, fault);
    try {
      await check(`${server.origin}/folder/`);
      const asked = server.asked.filter((p) => isWeights(p));
      assert.equal(asked.length, 2, name);
      if (name === "drop in the middle") assert.match(asked[1] ?? "", / bytes=65536-199999$/);
    } finally {
      await server.close();
    }
  }
});

test("a server without ranges is read from the start", async () => {
  const bytes = all.files[all.weights] ?? new Uint8Array();
  const server = await serve(all, (path, n, r) => {
    if (!isWeights(path)) return false;
    r.writeHead(200);
    if (n === 1) r.write(bytes.subarray(0, 70000), () => setTimeout(() => r.destroy(), 20));
    else r.end(bytes);
    return true;
  });
  try {
    await check(`${server.origin}/folder/`);
  } finally {
    await server.close();
  }
});

test("a manifest that is not the one that the server names is refused", async () => {
  const server = await serve(all, (path, _, r) => path.startsWith("/targets/") && !!r.writeHead(200).end(`${Buffer.from(all.files["manifest.json"] ?? []).toString()} `));
  try {
    assert.equal((await failure(load(`${server.origin}/tiny@1.0.0`))).code, "integrity");
    assert.equal((await failure(load(`${server.origin}/tiny@2.0.0`))).code, "not-found");
  } finally {
    await server.close();
  }
});

test("a package that is wrong in itself is refused", async () => {
  const json = (edit: (m: { format: number; files: { path: string; chunks: string[] }[] }) => void): Tiny => {
    const manifest = JSON.parse(Buffer.from(all.files["manifest.json"] ?? []).toString());
    edit(manifest);
    return { ...all, files: { ...all.files, "manifest.json": Buffer.from(JSON.stringify(manifest)) } };
  };
  const edit = (path: string, change: (bytes: Uint8Array) => Uint8Array) =>
    tiny({ edit: (files) => void (files[path] = change(files[path] ?? new Uint8Array())) });
  const cases: [string, string, Tiny][] = [
    ["another manifest format", "format-version", json((m) => void (m.format = 2))],
    ["a chunk too few", "invalid-package", json((m) => void m.files[3]?.chunks.pop())],
    ["a path that leaves the folder", "invalid-package", json((m) => void (m.files[3] && (m.files[3].path = "../x")))],
    ["another plan format", "format-version", edit("model.plan", (b) => b.map((x, i) => (i === 8 ? 9 : x)))],
    ["a truncated plan", "invalid-package", edit("model.plan", (b) => b.slice(0, 40))],
    ["a plan that is not one", "invalid-package", edit("model.plan", () => Buffer.from("<!doctype html>"))],
    ["wasm that is not wasm", "invalid-package", edit("model.wasm", () => Buffer.from("not wasm"))],
    ["golden outputs of another device", "golden-mismatch", tiny({ wrongGolden: true })],
    ["golden garbage", "invalid-package", edit("golden.bin", (b) => b.slice(0, 30))],
    ["weights of another build", "invalid-package", edit(all.weights, (b) => b.slice(0, 1000))],
  ];
  for (const [name, code, t] of cases) {
    assert.equal((await failure(load({ files: t.files }, { device: "wasm" }))).code, code, name);
  }
});

test("bad arguments are named", async () => {
  const cases: [string, Promise<unknown>][] = [
    ["device", load({ files: all.files }, { device: "cuda" as "wasm" })],
    ["threads", load({ files: all.files }, { threads: 0 })],
    ["cache", load({ files: all.files }, { cache: "disk" as "none" })],
    ["not a URL", load("tiny")],
    ["protocol", load("ftp://example.org/tiny")],
  ];
  for (const [name, work] of cases) assert.equal((await failure(work)).code, "invalid-input", name);
  assert.equal((await failure(load({ files: all.files }, { device: "webgpu" }))).code, "device-unavailable");
});

test("wrong feeds are named", async () => {
  const model = await load({ files: all.files }, { device: "wasm" });
  const x = new Tensor([1, 2]);
  const gone = new Tensor([1]);
  gone.dispose();
  const cases: [string, string, Record<string, Tensor>][] = [
    ["missing", "invalid-input", {}],
    ["another name", "invalid-input", { x, z: x }],
    ["inherited", "invalid-input", Object.create({ x }) as Record<string, Tensor>],
    ["type", "invalid-input", { x: new Tensor("int32", [1]) }],
    ["rank", "invalid-input", { x: new Tensor("float32", [1, 2], [1, 2]) }],
    ["too long", "dim-out-of-bounds", { x: new Tensor(new Float32Array(N + 1)) }],
    ["empty", "dim-out-of-bounds", { x: new Tensor(new Float32Array(0)) }],
    ["disposed", "disposed", { x: gone }],
    ["no tensor", "invalid-input", { x: [1] as unknown as Tensor }],
  ];
  for (const [name, code, feeds] of cases) {
    const error = await failure(model.run(feeds));
    assert.equal(error.code, code, `${name}: ${error.message}`);
  }
  assert.equal((await failure(model.run({ x }, { outputs: { nope: "cpu" } }))).code, "invalid-input");
  model.dispose();
  model.dispose();
  assert.equal((await failure(model.run({ x }))).code, "disposed");
});

test("calls are taken in order, and see their inputs as they were", async () => {
  const model = await load({ files: all.files }, { device: "wasm" });
  const order: number[] = [];
  const data = Float32Array.of(0, 2);
  const calls = [1, 2, 3].map(async (n) => {
    data[1] = 2 * n;
    const { y } = await model.run({ x: new Tensor("float32", data.slice(), [2]) });
    order.push(n);
    return y?.data[1];
  });
  assert.deepEqual(await Promise.all(calls), [1, 2, 3]);
  assert.deepEqual(order, [1, 2, 3]);
  assert.equal(model.stats().runs, 3);
  const waiting = new AbortController();
  const first = model.run({ x: new Tensor([1]) });
  const second = failure(model.run({ x: new Tensor([1]) }, { signal: waiting.signal }));
  waiting.abort();
  await first;
  assert.equal((await second).code, "aborted");
  model.dispose();
});

test("a model that is larger than the memory is refused before its weights are fetched", async () => {
  const large = tiny({ memory: 256 << 20 });
  const server = await serve(large);
  const script = `import { load } from ${JSON.stringify(import.meta.resolve("nearside"))};
    await load(${JSON.stringify(`${server.origin}/folder/`)}, { device: "wasm" }).catch((e) => console.log(JSON.stringify(e)));`;
  try {
    const said = await new Promise<string>((resolve, reject) => {
      // The engine's own limit, 128 MiB.
      const args = ["--wasm-max-mem-pages=2048", "--input-type=module", "-e", script];
      execFile(process.execPath, args, (error, out, err) => (error ? reject(new Error(err)) : resolve(out)));
    });
    const error = JSON.parse(said) as { code: string; help: string };
    assert.equal(error.code, "device-limit", said);
    assert.match(error.help, /smaller model/);
    assert.deepEqual(server.asked.filter(isWeights), []);
  } finally {
    await server.close();
  }
});

test("abort ends a load at every stage, and nothing hangs", async () => {
  const server = await serve(all);
  try {
    for (const stage of ["manifest", "download", "compile", "verify"] as const) {
      const stop = new AbortController();
      const onProgress = (p: Progress) => p.stage === stage && stop.abort();
      const error = await failure(load(`${server.origin}/folder/`, { device: "wasm", signal: stop.signal, onProgress }));
      assert.equal(error.code, "aborted", stage);
    }
    assert.equal((await failure(load(server.origin, { signal: AbortSignal.abort() }))).code, "aborted");
    await check(`${server.origin}/folder/`);
  } finally {
    await server.close();
  }
});
