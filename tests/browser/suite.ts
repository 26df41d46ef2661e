// The browser suite: real models in Chromium, in a window and in a worker, on WebGPU and on wasm, against ONNX Runtime's
// answers; then everything that can go wrong. Prints a line of JSON for each test.
// usage: node suite.js CONFIG.json [NAME]
// With NAME, only the tests whose name contains it.
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { bundlerTests } from "./bundlers.js";
import { clientTests } from "./client.js";
import { launch, type Browser } from "./lib/chromium.js";
import { readConfig } from "./lib/config.js";
import { parseNpy } from "./lib/npy.js";
import { ISOLATED, serve, type Server } from "./lib/server.js";
import type { Task } from "./page/task.js";

interface Config {
  readonly chromium: string;
  readonly root: string;
  readonly pkg: string;
  readonly models: string;
  /** The same for models that only tests use. */
  readonly others: string;
  /** The origin of `nearside serve`. */
  readonly origin: string;
  /** Model → the folder of its package. */
  readonly packages: Readonly<Record<string, string>>;
}

/** A case of a model with the outputs that are compared, and the largest difference that is allowed. */
interface Row {
  readonly model: string;
  readonly case: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly atol: number;
  /** Where the case lies, with nothing for `models`. */
  readonly folder?: "others";
}

const TOKENS = ["input_ids", "attention_mask", "token_type_ids"];
const ROWS: readonly Row[] = [
  { model: "efficientnet-lite0", case: "coffee", inputs: ["input"], outputs: ["probs"], atol: 1e-4 },
  { model: "efficientnet-lite0", case: "camera", inputs: ["input"], outputs: ["probs"], atol: 1e-4 },
  { model: "efficientnet-lite0", case: "chelsea", inputs: ["input"], outputs: ["probs"], atol: 1e-4 },
  { model: "minilm", case: "one", inputs: TOKENS, outputs: ["sentence_embedding"], atol: 1e-4 },
  { model: "minilm", case: "sentences", inputs: TOKENS, outputs: ["sentence_embedding"], atol: 1e-4 },
  { model: "minilm", case: "sequence-128", inputs: TOKENS, outputs: ["sentence_embedding"], atol: 1e-4 },
  // Where values are rounded to 8 bits, a difference in the last bit becomes a step of 1/256, and a few of these add up.
  { folder: "others", model: "efficientnet-lite0-int8", case: "coffee", inputs: ["input"], outputs: ["probs"], atol: 0.03 },
  { folder: "others", model: "efficientnet-lite0-int8", case: "camera", inputs: ["input"], outputs: ["probs"], atol: 0.03 },
  { folder: "others", model: "orientation", case: "page-270", inputs: ["x"], outputs: ["fetch_name_0"], atol: 1e-4 },
  { folder: "others", model: "text-recognition", case: "line", inputs: ["x"], outputs: ["softmax_11.tmp_0"], atol: 1e-4 },
  { folder: "others", model: "voice-activity", case: "silence", inputs: ["input", "state", "sr"], outputs: ["output", "stateN"], atol: 1e-4 },
  { folder: "others", model: "voice-activity", case: "speech", inputs: ["input", "state", "sr"], outputs: ["output", "stateN"], atol: 1e-4 },
];

const DEVICES = [
  { device: "webgpu", threads: 1 },
  { device: "wasm", threads: 1 },
  { device: "wasm", threads: 2 },
] as const;

/** How long one test may take, in milliseconds. */
const LIMIT = 180_000;

type Test = () => Promise<string>;

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

class Suite {
  readonly #tests = new Map<string, Test>();

  constructor(
    readonly config: Config,
    readonly browser: Browser,
    readonly server: Server,
  ) {}

  /** Adds a test; what it returns is printed. */
  add(name: string, test: Test): void {
    this.#tests.set(name, test);
  }

  async run(): Promise<void> {
    const wanted = process.argv[3] ?? "";
    for (const [name, test] of this.#tests) {
      if (!name.includes(wanted)) continue;
      const start = performance.now();
      let passed = true;
      let detail: string;
      try {
        detail = await test();
      } catch (error) {
        passed = false;
        detail = error instanceof Error ? error.message : String(error);
      }
      const ms = Math.round(performance.now() - start);
      process.stdout.write(`${JSON.stringify({ name, passed, detail, ms })}\n`);
    }
  }

  /** Runs `work` in a page of its own. */
  async inPage<K extends "inWindow" | "inWorker" | "failing" | "leaving">(
    kind: K,
    task: Task,
  ): Promise<Awaited<ReturnType<Window["suite"][K]>>> {
    const { page, errors } = await this.browser.page();
    page.setDefaultTimeout(LIMIT);
    try {
      await page.goto(`${this.server.origin}/page/suite.html`);
      await page.waitForFunction(() => "suite" in window);
      const argument: { readonly kind: string; readonly task: Task } = { kind, task };
      const result: unknown = await page.evaluate(async ({ kind, task }): Promise<unknown> => window.suite[kind as K](task), argument);
      return result as Awaited<ReturnType<Window["suite"][K]>>;
    } catch (error) {
      throw new Error([String(error), ...errors].join("\n"));
    } finally {
      await page.close();
    }
  }

  task(row: Row, device: Task["device"], threads: Task["threads"]): Task {
    const folder = `/${row.folder ?? "models"}/reference/${row.model}/${row.case}/inputs`;
    return {
      model: `${this.config.origin}/${row.model}@1.0.0`,
      device,
      threads,
      inputs: Object.fromEntries(row.inputs.map((name) => [name, `${folder}/${name}.npy`])),
      outputs: row.outputs,
    };
  }

  /** The classifier on wasm, with changes. */
  classifier(changes: Partial<Task>): Task {
    const [row] = ROWS;
    if (!row) throw new Error("no rows");
    return { ...this.task(row, "wasm", 1), ...changes };
  }

  /** A tensor of the reference that is f32. */
  async reference(row: Row, kind: "inputs" | "outputs", name: string): Promise<ArrayLike<number>> {
    const path = join(this.config[row.folder ?? "models"], "reference", row.model, row.case, kind, `${name}.npy`);
    const { data } = parseNpy(await readFile(path));
    check(data instanceof Float32Array, `${path} is not f32`);
    return data as Float32Array;
  }
}

function addModels(suite: Suite): void {
  for (const row of ROWS) {
    for (const { device, threads } of DEVICES) {
      for (const place of ["inWindow", "inWorker"] as const) {
        suite.add(`${row.model} ${row.case} ${device}${device === "wasm" ? threads : ""} ${place}`, async () => {
          const done = await suite.inPage(place, suite.task(row, device, threads));
          check(done.device === device, `it ran on ${done.device}`);
          if (device === "wasm") check(done.threads === threads, `it ran with ${done.threads} threads`);
          let most = 0;
          for (const name of row.outputs) {
            const want = await suite.reference(row, "outputs", name);
            const got = done.outputs[name] ?? [];
            check(got.length === want.length, `${name} has ${got.length} values, not ${want.length}`);
            for (let i = 0; i < want.length; i++) {
              const diff = Math.abs((got[i] ?? Number.NaN) - (want[i] ?? Number.NaN));
              if (!(diff <= most)) most = diff;
            }
          }
          check(most <= row.atol, `max abs difference ${most} to ONNX Runtime, more than ${row.atol}`);
          return `max abs difference ${most.toExponential(1)} to ONNX Runtime, ${done.variant ?? done.device}`;
        });
      }
    }
  }
}

/** What goes wrong, and the code of the error that must come of it. */
function addFailures(suite: Suite): void {
  const failing = (name: string, code: string, changes: Partial<Task>): void => {
    suite.add(name, async () => {
      const failed = await suite.inPage("failing", suite.classifier({ cache: "none", ...changes }));
      check(failed.name === "NearsideError" && failed.code === code, `${failed.name} ${failed.code}: ${failed.message}`);
      const { gpu, workers } = failed.left;
      check(gpu === 0 && workers === 0, `${gpu} bytes on the GPU and ${workers} workers are left`);
      return failed.message;
    });
  };
  const fault = (kind: string): string => `${suite.server.origin}/fault/${kind}/`;
  failing("a model that is not there", "not-found", { model: `${suite.config.origin}/nothing@1.0.0` });
  failing("a version that is not there", "not-found", { model: `${suite.config.origin}/minilm@9.9.9` });
  failing("a server that answers 404 for the weights", "not-found", { model: fault("404") });
  failing("a server that answers 500 for the weights", "network", { model: fault("500"), stallTimeout: 200 });
  failing("a server that answers HTML for the weights", "network", { model: fault("html") });
  failing("a flipped bit in the weights", "integrity", { model: fault("flip") });
  failing("too few bytes of weights", "network", { model: fault("short") });
  failing("a server that stalls", "timeout", { model: fault("stall"), stallTimeout: 200 });
  failing("abort while weights stall", "aborted", { model: fault("stall"), abortAfter: 400 });
  failing("a wrong input name", "invalid-input", { inputs: {} });
  for (const device of ["webgpu", "wasm"] as const) {
    failing(`run after dispose on ${device}`, "disposed", { device, runAfterDispose: true });
    for (const abortAt of ["manifest", "download", "compile", "verify"] as const) {
      failing(`abort at the stage ${abortAt} on ${device}`, "aborted", { device, abortAt });
    }
  }
  failing("a flipped bit in the weights, on WebGPU", "integrity", { model: fault("flip"), device: "webgpu" });
  failing("a server that stalls, on WebGPU", "timeout", { model: fault("stall"), device: "webgpu", stallTimeout: 200 });
}

/** Bytes by which the memory of a page may differ from run to run: less than one model's weights. */
const SLACK = 12e6;

function addLifecycle(suite: Suite): void {
  for (const device of ["webgpu", "wasm"] as const) {
    suite.add(`loaded and disposed 50 times on ${device}`, async () => {
      const task = suite.classifier({ device, times: 50 });
      const { left, peak, memory } = await suite.inPage("leaving", task);
      const once = await suite.inPage("leaving", { ...task, times: 1 });
      check(left.gpu === 0 && left.workers === 0, `${left.gpu} bytes on the GPU and ${left.workers} workers are left`);
      check(peak <= once.peak, `a peak of ${peak} bytes, where one model takes ${once.peak}`);
      check(memory <= once.memory + SLACK, `${memory} bytes of memory, where one model leaves ${once.memory}`);
      const mb = (bytes: number): string => (bytes / 1e6).toFixed(1);
      return `nothing left on the GPU (peak ${mb(peak)} MB, as for one), ${mb(memory)} MB of memory after 50, ${mb(once.memory)} MB after one`;
    });
  }
}

/** Serves a package's folder at /fault/KIND/ with its weights damaged in one way. */
function faulty(folder: string): (request: IncomingMessage, response: ServerResponse) => boolean {
  return (request, response) => {
    const match = /^\/fault\/([a-z0-9]+)\/(.*)$/.exec(request.url ?? "");
    if (!match) return false;
    const [, kind, path] = match;
    answerFault(join(folder, path ?? ""), path?.startsWith("weights/") === true ? (kind ?? "") : "", request, response).catch(
      () => response.destroy(),
    );
    return true;
  };
}

async function answerFault(file: string, kind: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (kind === "404" || kind === "500") {
    response.writeHead(Number(kind), ISOLATED).end("no");
    return;
  }
  if (kind === "html") {
    response.writeHead(200, { ...ISOLATED, "Content-Type": "text/html" }).end("<!doctype html><p>Not what you want</p>");
    return;
  }
  const whole = await readFile(file);
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const start = Number(range?.[1] ?? 0);
  const end = range?.[2] ? Number(range[2]) + 1 : whole.length;
  let body = whole.subarray(start, end);
  if (kind === "flip") {
    body = Buffer.from(body);
    body[body.length >> 1] = (body[body.length >> 1] ?? 0) ^ 1;
  }
  if (kind === "short") body = body.subarray(0, body.length - 1);
  const ranges = range ? { "Content-Range": `bytes ${start}-${start + body.length - 1}/${whole.length}` } : {};
  response.writeHead(range ? 206 : 200, { ...ISOLATED, ...ranges, "Content-Type": "application/octet-stream" });
  if (kind === "stall") {
    // Half of the bytes, and then nothing more.
    response.write(body.subarray(0, body.length >> 1));
    return;
  }
  response.end(body);
}

async function main(): Promise<void> {
  const config = await readConfig<Config>();
  const classifier = config.packages["efficientnet-lite0"];
  if (classifier === undefined) throw new Error("the suite needs the package of efficientnet-lite0");
  const server = await serve({
    mounts: {
      "/page": join(config.root, "tests/browser/page"),
      "/js": join(config.root, "target/js"),
      "/pkg": config.pkg,
      "/models": config.models,
      "/others": config.others,
    },
    headers: ISOLATED,
    intercept: faulty(classifier),
  });
  // Without the flag, memory is measured at the next garbage collection, whenever that is.
  const browser = await launch(config.chromium, ["--enable-blink-features=ForceEagerMeasureMemory"]);
  try {
    const suite = new Suite(config, browser, server);
    addModels(suite);
    addFailures(suite);
    addLifecycle(suite);
    const model = `${config.origin}/efficientnet-lite0@1.0.0`;
    for (const [name, test] of clientTests({ browser, origin: server.origin, model })) suite.add(name, test);
    const [row] = ROWS;
    if (!row) throw new Error("no rows");
    const input = await suite.reference(row, "inputs", "input");
    const expected = await suite.reference(row, "outputs", "probs");
    for (const [name, test] of bundlerTests({ browser, root: config.root, model, input, expected })) suite.add(name, test);
    await suite.run();
  } finally {
    await browser.close();
    await server.close();
  }
}

await main();
