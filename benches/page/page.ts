// The page's side of the benchmark: opens runners, runs them in turn, reports times. `benches/bench.ts` drives it.
import { countInto, install, newCounts, type Counts } from "./counters.js";
import { nearside } from "./nearside.js";
import { ortCapture, ortWasm, ortWebgpu } from "./ort.js";
import { measurePeak } from "./peak.js";
import { rten } from "./rten.js";
import { fetchExpected, fetchInputs, type ModelSpec, type Open, type Runner } from "./runner.js";

const OPEN = {
  "nearside-wasm1": nearside("wasm", 1),
  "nearside-wasm2": nearside("wasm", 2),
  "nearside-webgpu": nearside("webgpu", 1),
  "ort-wasm1": ortWasm(1),
  "ort-wasm2": ortWasm(2),
  "ort-webgpu": ortWebgpu,
  "ort-webgpu-capture": ortCapture,
  "rten-wasm1": rten,
} satisfies Record<string, Open>;

export type RunnerName = keyof typeof OPEN;

interface Opened {
  readonly runner: Runner;
  readonly counts: Counts;
}

export interface First {
  /** Milliseconds from nothing loaded to the first output. */
  readonly ms: number;
  readonly maxAbsDiff: number;
}

const opened = new Map<RunnerName, Opened>();

function find(name: RunnerName): Opened {
  const found = opened.get(name);
  if (!found) throw new Error(`${name} is not open`);
  countInto(found.counts);
  return found;
}

/** Opens a runner and runs it once. */
async function open(name: RunnerName, model: ModelSpec, keep: boolean): Promise<First> {
  const [inputs, expected] = await Promise.all([fetchInputs(model), fetchExpected(model)]);
  const counts = newCounts();
  countInto(counts);
  const start = performance.now();
  const runner = await OPEN[name](model, inputs, keep);
  const output = await runner.run();
  const ms = performance.now() - start;
  opened.set(name, { runner, counts });
  if (output.length !== expected.length) throw new Error(`${name}: ${output.length} values, not ${expected.length}`);
  // Written so that a value that is not a number does not pass as small.
  const maxAbsDiff = output.reduce((most, value, i) => {
    const diff = Math.abs(value - (expected[i] ?? Number.NaN));
    return diff <= most ? most : diff;
  }, 0);
  return { ms, maxAbsDiff };
}

/** Runs the opened runners in turn, `rounds` times; milliseconds of each run. */
async function interleave(names: readonly RunnerName[], rounds: number): Promise<Record<string, number[]>> {
  const times: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      const { runner } = find(name);
      // Lets worker threads of the runner before come to rest.
      await new Promise((resolve) => setTimeout(resolve, 30));
      const start = performance.now();
      await runner.run();
      times[name]?.push(performance.now() - start);
    }
  }
  return times;
}

/** Runs one runner `runs` times; what it asked of WebGPU in these runs, and its peak since it was opened. */
async function count(name: RunnerName, runs: number): Promise<Counts> {
  const { runner, counts } = find(name);
  const before = { ...counts };
  for (let run = 0; run < runs; run++) await runner.run();
  const a = (now: number, then: number): number => (now - then) / runs;
  return {
    dispatches: a(counts.dispatches, before.dispatches),
    submits: a(counts.submits, before.submits),
    passes: a(counts.passes, before.passes),
    bindGroups: a(counts.bindGroups, before.bindGroups),
    buffers: a(counts.buffers, before.buffers),
    writes: a(counts.writes, before.writes),
    pipelines: a(counts.pipelines, before.pipelines),
    bytes: counts.bytes,
    peakBytes: counts.peakBytes,
  };
}

async function close(name: RunnerName): Promise<void> {
  await find(name).runner.dispose();
  opened.delete(name);
}

/** Fetches files so that the HTTP cache holds them. */
async function warm(urls: readonly string[]): Promise<void> {
  for (const url of urls) await (await fetch(url)).arrayBuffer();
}

install();
const bench = { open, interleave, count, close, warm, measurePeak };
export type Bench = typeof bench;
declare global {
  interface Window {
    bench: Bench;
  }
}
window.bench = bench;
