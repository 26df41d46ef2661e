// The host of model.wasm: one instance in this thread. Its memory holds weights, inputs, activations and outputs at the
// places that the plan states.
import { NearsideError, toError } from "./errors.js";

/** Bytes for the memory of model.wasm. */
export interface Write {
  /** Where they go, bytes from the start of the memory. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** A range of the memory of model.wasm. */
export interface Range {
  readonly at: number;
  readonly length: number;
}

/** One run: what is written before it and read after it. */
export interface Job {
  readonly writes: readonly Write[];
  readonly reads: readonly Range[];
  /** Whether weights are yet to come. */
  readonly early: boolean;
  /** Whether none has finished before. */
  readonly first: boolean;
}

type Run = (part: number, parts: number, pieces: number) => number;
type Step = (kernel: number, part: number, parts: number) => void;

/** Where the abort word (u32) lies in the memory of model.wasm: a run stops at the next kernel where it is not 0. */
export const ABORT = 0;

/** Milliseconds after which a run in steps lets messages in. */
const SLICE = 12;

/**
 * Calls for each kernel of a first run, and of a run in steps. Engines compile a function well only when it has used up some time, and go over
 * to the better code at the next call: a kernel that is one call would run as slowly compiled to its end.
 */
const PIECES = 32;

export class Host {
  readonly memory: WebAssembly.Memory;
  readonly #kernels: number;
  readonly #run: Run;
  readonly #step: Step;
  /** Kernels that have their weights. */
  #ready = 0;
  #stopped = false;
  #changed = () => {};

  private constructor(memory: WebAssembly.Memory, kernels: number, run: Run, step: Step) {
    this.memory = memory;
    this.#kernels = kernels;
    this.#run = run;
    this.#step = step;
  }

  /** Instantiates the module of so many kernels; `memory` is for the threaded variant, which imports it. */
  static async start(module: WebAssembly.Module, kernels: number, memory?: WebAssembly.Memory): Promise<Host> {
    const imports: Record<string, Record<string, WebAssembly.Memory>> = {};
    for (const wanted of WebAssembly.Module.imports(module)) {
      if (wanted.kind !== "memory" || !memory) throw invalid(`it imports ${wanted.module}.${wanted.name}`);
      (imports[wanted.module] ??= {})[wanted.name] = memory;
    }
    let instance: WebAssembly.Instance;
    try {
      instance = await WebAssembly.instantiate(module, imports);
    } catch (thrown) {
      if (thrown instanceof RangeError) throw outOfMemory(thrown);
      throw new NearsideError("invalid-package", `model.wasm does not start: ${toError(thrown).what}`, { cause: thrown });
    }
    const { memory: own, run, step } = instance.exports;
    const used = memory ?? own;
    if (!(used instanceof WebAssembly.Memory)) throw invalid("it exports no memory");
    if (typeof run !== "function" || typeof step !== "function") throw invalid("it exports no functions run and step");
    return new Host(used, kernels, run as Run, step as Step);
  }

  /** Writes weights into the memory; then `ready` kernels have theirs. */
  write(writes: readonly Write[], ready: number): void {
    writeAll(this.memory, writes);
    this.#ready = ready;
    this.#changed();
  }

  /** Ends the run in steps that is under way. */
  stop(): void {
    this.#stopped = true;
    this.#changed();
  }

  /** Runs this thread's part of every kernel. False where the abort word ended the run. */
  run(part: number, parts: number, first: boolean): boolean {
    return trapped(() => this.#run(part, parts, first ? PIECES : 1)) === 0;
  }

  /**
   * Runs all kernels in this thread, each as soon as its weights are there, letting messages in now and then. False where
   * `stop` ended it.
   */
  async runInSteps(): Promise<boolean> {
    this.#stopped = false;
    let since = performance.now();
    for (let kernel = 0; kernel < this.#kernels; kernel++) {
      while (kernel >= this.#ready && !this.#stopped) {
        await new Promise<void>((resolve) => (this.#changed = resolve));
        since = performance.now();
      }
      for (let piece = 0; piece < PIECES; piece++) {
        if (performance.now() - since > SLICE) {
          await turn();
          since = performance.now();
        }
        if (this.#stopped) return false;
        trapped(() => this.#step(kernel, piece, PIECES));
      }
    }
    return true;
  }

  /** Copies out of the memory. */
  read(ranges: readonly Range[]): ArrayBuffer[] {
    return readAll(this.memory, ranges);
  }
}

function trapped<T>(run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw new NearsideError("internal", `model.wasm stopped: ${toError(cause).what}`, { place: "model.wasm", cause });
  }
}

/** Settles after the messages that wait have been handled. Timers would wait 4 ms and more. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}

/** The buffers of writes that may go to another thread, each once. */
export function owned(writes: readonly Write[]): ArrayBuffer[] {
  const all = new Set<ArrayBuffer>();
  for (const { bytes } of writes) if (bytes.buffer instanceof ArrayBuffer) all.add(bytes.buffer);
  return [...all];
}

/** Writes into a memory, in bounds. */
export function writeAll(memory: WebAssembly.Memory, writes: readonly Write[]): void {
  const all = new Uint8Array(memory.buffer);
  for (const { at, bytes } of writes) {
    if (at + bytes.length > all.length) throw invalid(`it has ${all.length} bytes of memory, and ${at + bytes.length} are used`);
    all.set(bytes, at);
  }
}

/** Copies out of a memory, in bounds. */
export function readAll(memory: WebAssembly.Memory, ranges: readonly Range[]): ArrayBuffer[] {
  const { buffer } = memory;
  return ranges.map(({ at, length }) => {
    if (at + length > buffer.byteLength) throw invalid(`it has ${buffer.byteLength} bytes of memory, and ${at + length} are read`);
    const copy = new Uint8Array(length);
    copy.set(new Uint8Array(buffer, at, length));
    return copy.buffer;
  });
}

/** The memory of a model does not fit this device. */
export function outOfMemory(cause: unknown): NearsideError {
  return new NearsideError("device-limit", "there is not enough memory for this model", {
    help: "dispose of other models, close other pages, or take a smaller model",
    cause,
  });
}

const invalid = (what: string) =>
  new NearsideError("invalid-package", what, { place: "model.wasm", help: "build the model again with the same version of nearside" });
