// What the suite asks of a model, the same in a window and in a worker.
import type { DataType, Progress, TensorData } from "nearside";
import { parseNpy } from "../lib/npy.js";

type Nearside = typeof import("nearside");

export interface Task {
  /** An address that `load` takes. */
  readonly model: string;
  readonly device: "auto" | "webgpu" | "wasm";
  readonly threads: "auto" | number;
  /** Input name → URL of an .npy file. */
  readonly inputs: Readonly<Record<string, string>>;
  /** The outputs that are given back. */
  readonly outputs: readonly string[];
  /** Milliseconds after which the load is aborted. */
  readonly abortAfter?: number;
  /** The stage of the load at whose first progress it is aborted. */
  readonly abortAt?: Progress["stage"];
  readonly stallTimeout?: number;
  readonly cache?: "cache" | "none";
  /** Loads, runs and disposes this often [1]. */
  readonly times?: number;
  /** Runs once more after dispose(). */
  readonly runAfterDispose?: boolean;
}

export interface Done {
  readonly device: string;
  readonly variant: string | undefined;
  readonly threads: number;
  readonly outputs: Readonly<Record<string, number[]>>;
}

/** The class and code of the error where the task failed. */
export interface Failed {
  readonly name: string;
  readonly code: string | undefined;
  readonly message: string;
}

/** What a task left behind. */
export interface Left {
  /** Bytes of GPU buffers. */
  readonly gpu: number;
  readonly workers: number;
}

/** Bare module names mean nothing in a worker, which has no import map. */
const MODULE = "/pkg/index.js";

export async function runTask(task: Task): Promise<Done> {
  const nearside = (await import(MODULE)) as Nearside;
  let done: Done | undefined;
  for (let time = 0; time < (task.times ?? 1); time++) done = await once(nearside, task);
  if (!done) throw new Error("nothing ran");
  return done;
}

async function once({ load, Tensor }: Nearside, task: Task): Promise<Done> {
  const stop = new AbortController();
  if (task.abortAfter !== undefined) setTimeout(() => stop.abort(), task.abortAfter);
  const model = await load(new URL(task.model, location.href).href, {
    device: task.device,
    threads: task.threads,
    signal: stop.signal,
    onProgress: (progress) => {
      if (progress.stage === task.abortAt) stop.abort();
    },
    ...(task.cache === undefined ? {} : { cache: task.cache }),
    ...(task.stallTimeout === undefined ? {} : { stallTimeout: task.stallTimeout }),
  });
  try {
    const feeds: Record<string, InstanceType<typeof Tensor>> = {};
    for (const [name, url] of Object.entries(task.inputs)) {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`${url}: ${response.status}`);
      const { dtype, data, shape } = parseNpy(new Uint8Array(await response.arrayBuffer()));
      feeds[name] = new Tensor(dtype satisfies DataType, data satisfies TensorData, shape);
    }
    const results = await model.run(feeds);
    const outputs: Record<string, number[]> = {};
    for (const name of task.outputs) {
      const result = results[name];
      if (!result) throw new Error(`the model has no output ${name}`);
      outputs[name] = Array.from(result.data, Number);
    }
    if (task.runAfterDispose === true) {
      model.dispose();
      await model.run(feeds);
    }
    const { kind, variant, threads } = model.device;
    return { device: kind, variant, threads, outputs };
  } finally {
    model.dispose();
  }
}

/** What a thrown value tells. */
export function describe(thrown: unknown): Failed {
  if (!(thrown instanceof Error)) return { name: typeof thrown, code: undefined, message: String(thrown) };
  const code = "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
  return { name: thrown.name, code, message: thrown.message };
}
