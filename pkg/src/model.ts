// A loaded model.
import type { CacheStats } from "./cache.js";
import type { DeviceInfo, DeviceKind, Memory, OutputLocation, RunCounters } from "./device.js";
import { type ErrorCode, NearsideError, abortable, aborted, throwIfAborted, toError } from "./errors.js";
import { type LoadTimes, type Origin, type Proof, type Started, startDevice } from "./start.js";
import { Queue } from "./queue.js";
import { type Signature, guard } from "./runtime.js";
import { Tensor } from "./tensor.js";
import { whenIdle } from "./tuning.js";

/** A device that was not taken, and why. */
export interface Refused {
  readonly device: DeviceKind;
  readonly code: ErrorCode;
  readonly reason: string;
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  /** Where outputs are left, for all or by name. On the GPU they can be fed to another model without a copy to the CPU. */
  readonly outputs?: OutputLocation | { readonly [name: string]: OutputLocation };
}

/** Figures of a model. Bytes and milliseconds. */
export interface Stats {
  readonly device: DeviceInfo;
  readonly memory: Memory;
  readonly cache: CacheStats;
  /** Bytes of the package that were read. */
  readonly bytes: number;
  readonly load: Readonly<LoadTimes>;
  readonly proof: Proof;
  /** Runs that finished. */
  readonly runs: number;
  /** The last run, from the call to the outputs, and the device's own part of it. */
  readonly lastRun: { readonly ms: number; readonly deviceMs: number } | undefined;
  /** On the GPU: what was made at load, and what the last run did. */
  readonly gpu: RunCounters | undefined;
  /** How often a lost device was replaced. */
  readonly recoveries: number;
  readonly refused: readonly Refused[];
}

const statsOf = ({ device, bytes, times, proof }: Started): Fixed => {
  return { device: device.info, memory: device.memory, bytes, load: times, proof };
};

/** Figures that change with the device only. */
type Fixed = Pick<Stats, "device" | "memory" | "bytes" | "load" | "proof">;

/** A lost device is replaced this often for one call. */
const RECOVERIES = 2;

export class Model<
  Feeds extends { readonly [K in keyof Feeds]: Tensor } = Record<string, Tensor>,
  Results extends { readonly [K in keyof Results]: Tensor } = Record<string, Tensor>,
> {
  /** Inputs, outputs and symbolic dims. */
  readonly signature: Signature;
  readonly #origin: Origin;
  readonly #refused: readonly Refused[];
  readonly #queue = new Queue();
  readonly #ended = new AbortController();
  #started: Started | undefined;
  #mayTune = true;
  #runs = 0;
  #recoveries = 0;
  #last: Stats["lastRun"];
  #stats: Fixed;

  /** Use `load`. */
  constructor(origin: Origin, started: Started, refused: readonly Refused[]) {
    this.#origin = origin;
    this.#started = started;
    this.#refused = refused;
    this.signature = origin.signature;
    this.#stats = statsOf(started);
  }

  /** The device that runs this model. */
  get device(): DeviceInfo {
    return this.#stats.device;
  }

  /** Runs the model. Calls from many tasks are taken in the order in which they came. */
  async run(feeds: Feeds, options: RunOptions = {}): Promise<Results> {
    const begin = performance.now();
    this.#alive();
    throwIfAborted(options.signal);
    const inputs = this.#inputs(feeds);
    const bound = guard(() => this.#origin.plan.bind(inputs.map((t) => t.dims)), this.signature.name);
    const locations = this.#locations(options.outputs);
    const result = this.#queue.run(async () => {
      const { outputs, deviceMs } = await this.#recovering(options.signal, (started) =>
        started.device.run(inputs, bound, locations, options.signal),
      );
      this.#runs++;
      this.#last = { ms: performance.now() - begin, deviceMs };
      this.#tuneLater();
      const named = this.signature.outputs.map((port, i) => [port.name, outputs[i]] as const);
      return Object.fromEntries(named) as unknown as Results;
    }, options.signal);
    // The caller need not wait until the device has stopped; the next call does.
    return abortable(result, options.signal);
  }

  stats(): Stats {
    return {
      ...this.#stats,
      cache: this.#origin.cache.stats,
      runs: this.#runs,
      lastRun: this.#last,
      gpu: this.#started?.device.counters?.(),
      recoveries: this.#recoveries,
      refused: this.#refused,
    };
  }

  /** Frees everything; runs under way end with the code `disposed`. Calling it again does nothing. */
  dispose(): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    this.#started?.device.dispose();
    this.#started = undefined;
    this.#origin.plan.free();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #alive(): void {
    if (this.#ended.signal.aborted) {
      throw new NearsideError("disposed", "the model was disposed", { place: this.signature.name, help: "load it again" });
    }
  }

  async #recovering<T>(signal: AbortSignal | undefined, work: (started: Started) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      this.#alive();
      try {
        this.#started ??= await this.#restart(signal);
        this.#alive();
        return await work(this.#started);
      } catch (thrown) {
        this.#alive();
        if (signal?.aborted) throw aborted(signal.reason);
        const error = toError(thrown, this.signature.name);
        if (error.code !== "device-lost" || attempt >= RECOVERIES) throw error;
        this.#started?.device.dispose();
        this.#started = undefined;
      }
    }
  }

  async #restart(signal: AbortSignal | undefined): Promise<Started> {
    const ends = signal ? AbortSignal.any([signal, this.#ended.signal]) : this.#ended.signal;
    const { cache } = this.#origin;
    const started = await startDevice(this.#stats.device.kind, this.#origin, ends, () => undefined).finally(() => cache.rest());
    this.#recoveries++;
    this.#stats = statsOf(started);
    return started;
  }

  /** Lets the device make itself faster once, when there is time after the first answer. */
  #tuneLater(): void {
    if (!this.#mayTune || !this.#started?.device.tune) return;
    this.#mayTune = false;
    whenIdle(() => {
      this.#queue.run(() => this.#tune(), this.#ended.signal).catch(() => undefined);
    });
  }

  async #tune(): Promise<void> {
    const started = this.#started;
    const { signal } = this.#ended;
    if (!started || signal.aborted) return;
    try {
      await started.device.tune?.(() => started.prove(signal));
    } catch {
      // The next call starts the device anew, with what was proven when the model was loaded.
      started.device.dispose();
      if (this.#started === started) this.#started = undefined;
    }
  }

  #inputs(feeds: Feeds): Tensor[] {
    const { inputs, name } = this.signature;
    const wrong = (what: string, help?: string) => new NearsideError("invalid-input", what, { place: name, help });
    if (typeof feeds !== "object" || feeds === null) throw wrong("feeds are not an object of tensors");
    const wanted = inputs.map((port) => `${port.name}: ${port.type} [${port.shape.join(", ")}]`).join("; ");
    for (const key of Object.keys(feeds)) {
      if (!inputs.some((port) => port.name === key)) throw wrong(`there is no input "${key}"`, `inputs are ${wanted}`);
    }
    return inputs.map((port) => {
      const tensor: unknown = Object.hasOwn(feeds, port.name) ? feeds[port.name as keyof Feeds] : undefined;
      if (tensor === undefined) throw wrong(`input "${port.name}" is missing`, `inputs are ${wanted}`);
      if (!(tensor instanceof Tensor)) throw wrong(`input "${port.name}" is not a Tensor`, `inputs are ${wanted}`);
      if (tensor.location === "none") throw new NearsideError("disposed", `the tensor for "${port.name}" was disposed`, { place: name });
      if (tensor.type !== port.type) throw wrong(`input "${port.name}" is ${tensor.type} where ${port.type} is wanted`);
      // A call that has to wait must not see what the caller writes meanwhile.
      return this.#queue.busy && tensor.location === "cpu" ? new Tensor(tensor.type, tensor.data.slice(), tensor.dims) : tensor;
    });
  }

  #locations(wanted: RunOptions["outputs"]): OutputLocation[] {
    const { outputs, name } = this.signature;
    const of = (port: string) => (typeof wanted === "object" ? wanted[port] : wanted) ?? "cpu";
    for (const key of typeof wanted === "object" ? Object.keys(wanted) : []) {
      if (!outputs.some((port) => port.name === key)) {
        throw new NearsideError("invalid-input", `there is no output "${key}"`, { place: name, help: `outputs are ${outputs.map((o) => o.name).join(", ")}` });
      }
    }
    return outputs.map((port) => of(port.name));
  }
}
