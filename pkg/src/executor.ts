// Where model.wasm runs: in this thread, in a worker, or in several workers over one shared memory.
import { NearsideError, aborted, toError } from "./errors.js";
import { ABORT, Host, type Job, type Write, outOfMemory, owned, readAll, writeAll } from "./host.js";
import type { Answer, Request } from "./messages.js";

/** What a run gave. */
export interface Done {
  readonly reads: readonly ArrayBuffer[];
  /** Milliseconds of computation. */
  readonly ms: number;
  /** Whether the run was aborted. */
  readonly stopped: boolean;
}

/** Runs model.wasm somewhere. */
export interface Executor {
  readonly threads: number;
  /** Puts weights into the memory; then `ready` kernels have theirs. The buffers are taken, and given back. */
  write(writes: readonly Write[], ready: number): Promise<readonly ArrayBuffer[]>;
  /** Runs once, each kernel as soon as its weights are there. `signal` ends it before that, and between two kernels. */
  run(job: Job, signal?: AbortSignal): Promise<Done>;
  /** Frees the memory and ends the workers. */
  dispose(): void;
}

const isMainThread = () => typeof window !== "undefined" && typeof Worker !== "undefined";

/** Starts a single-threaded model.wasm: in a worker when this is a window, else here. The worker starts meanwhile. */
export async function startSingle(module: Promise<WebAssembly.Module>, kernels: number): Promise<Executor> {
  if (!isMainThread()) return new Here(await Host.start(await module, kernels));
  const worker = new Remote();
  try {
    await worker.call({ op: "start", id: worker.id(), module: await module, kernels, memory: undefined });
  } catch (thrown) {
    worker.end();
    throw thrown;
  }
  return new Single(worker);
}

/** Starts `threads` workers over one shared memory of so many bytes. */
export async function startThreads(
  compiling: Promise<WebAssembly.Module>,
  kernels: number,
  bytes: number,
  threads: number,
): Promise<Executor> {
  const pages = Math.ceil(bytes / 65536);
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    throw outOfMemory(cause);
  }
  const workers = Array.from({ length: threads }, () => new Remote());
  try {
    const module = await compiling;
    await Promise.all(workers.map((w) => w.call({ op: "start", id: w.id(), module, kernels, memory })));
  } catch (thrown) {
    for (const w of workers) w.end();
    throw thrown;
  }
  return new Threads(workers, memory);
}

/** A worker and the calls that it has not answered. */
class Remote {
  readonly #worker: Worker;
  readonly #calls = new Map<number, { resolve: (done: Done) => void; reject: (error: NearsideError) => void }>();
  #next = 0;
  #dead: NearsideError | undefined;

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "nearside" });
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const call = this.#calls.get(data.id);
      this.#calls.delete(data.id);
      if ("error" in data) call?.reject(toError(data.error));
      else call?.resolve(data);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const help = "allow workers of this origin (Content-Security-Policy: worker-src 'self')";
      this.#die(new NearsideError("device-lost", `the worker ended: ${event.message || "it did not load"}`, { help }));
    };
    this.#worker.onmessageerror = () => this.#die(new NearsideError("internal", "a message to the worker was lost"));
  }

  id(): number {
    return this.#next++;
  }

  send(request: Request, transfer: Transferable[] = []): void {
    this.#worker.postMessage(request, transfer);
  }

  call(request: Request & { readonly id: number }, transfer: Transferable[] = []): Promise<Done> {
    if (this.#dead) return Promise.reject(this.#dead);
    return new Promise((resolve, reject) => {
      this.#calls.set(request.id, { resolve, reject });
      this.send(request, transfer);
    });
  }

  #die(error: NearsideError): void {
    this.#dead = error;
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }

  end(): void {
    this.#worker.terminate();
    this.#die(new NearsideError("disposed", "the model was disposed"));
  }
}

/** `work`, with `stop` called where `signal` is aborted meanwhile; a run that stopped is an error. */
async function stoppable(work: Promise<Done>, stop: () => void, signal: AbortSignal | undefined): Promise<Done> {
  if (signal?.aborted) stop();
  else signal?.addEventListener("abort", stop, { once: true });
  try {
    const done = await work;
    if (done.stopped || signal?.aborted) throw aborted(signal?.reason);
    return done;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

class Single implements Executor {
  readonly threads = 1;
  constructor(readonly worker: Remote) {}

  async write(writes: readonly Write[], ready: number): Promise<readonly ArrayBuffer[]> {
    const { worker } = this;
    return (await worker.call({ op: "write", id: worker.id(), writes, ready }, owned(writes))).reads;
  }

  run(job: Job, signal?: AbortSignal): Promise<Done> {
    const { worker } = this;
    const steps = job.early || signal !== undefined;
    const work = worker.call({ op: "run", id: worker.id(), job, part: 0, parts: 1, steps });
    return stoppable(work, () => worker.send({ op: "stop" }), signal);
  }

  dispose(): void {
    this.worker.end();
  }
}

class Threads implements Executor {
  readonly threads: number;
  readonly #abort: Int32Array;
  constructor(
    readonly workers: readonly Remote[],
    readonly memory: WebAssembly.Memory,
  ) {
    this.threads = workers.length;
    this.#abort = new Int32Array(memory.buffer, ABORT, 1);
  }

  async write(writes: readonly Write[], ready: number): Promise<readonly ArrayBuffer[]> {
    writeAll(this.memory, writes);
    const [first] = this.workers;
    await first?.call({ op: "write", id: first.id(), writes: [], ready });
    return owned(writes);
  }

  run(job: Job, signal?: AbortSignal): Promise<Done> {
    const [first] = this.workers;
    if (first && job.early) {
      // One thread follows the weights as they come: the others would only wait at each kernel.
      const work = first.call({ op: "run", id: first.id(), job, part: 0, parts: 1, steps: true });
      return stoppable(work, () => first.send({ op: "stop" }), signal);
    }
    Atomics.store(this.#abort, 0, 0);
    return stoppable(this.#all(job), () => Atomics.store(this.#abort, 0, 1), signal);
  }

  async #all(job: Job): Promise<Done> {
    writeAll(this.memory, job.writes);
    const parts = this.workers.length;
    const none: Job = { ...job, writes: [], reads: [] };
    try {
      const all = this.workers.map((w, part) => w.call({ op: "run", id: w.id(), job: none, part, parts, steps: false }));
      const done = await Promise.all(all);
      const stopped = done.some((d) => d.stopped);
      return { reads: stopped ? [] : readAll(this.memory, job.reads), ms: Math.max(...done.map((d) => d.ms)), stopped };
    } catch (cause) {
      // The other threads wait for the one that failed, and would for ever.
      this.dispose();
      throw new NearsideError("device-lost", `a thread failed: ${toError(cause).what}`, { cause });
    }
  }

  dispose(): void {
    for (const w of this.workers) w.end();
  }
}

class Here implements Executor {
  readonly threads = 1;
  #host: Host | undefined;
  constructor(host: Host) {
    this.#host = host;
  }

  async write(writes: readonly Write[], ready: number): Promise<readonly ArrayBuffer[]> {
    this.#used().write(writes, ready);
    return owned(writes);
  }

  run(job: Job, signal?: AbortSignal): Promise<Done> {
    const host = this.#used();
    const work = this.#run(host, job, job.early || signal !== undefined);
    return stoppable(work, () => host.stop(), signal);
  }

  async #run(host: Host, job: Job, steps: boolean): Promise<Done> {
    const begin = performance.now();
    writeAll(host.memory, job.writes);
    const finished = steps ? await host.runInSteps() : host.run(0, 1, job.first);
    return { reads: finished ? host.read(job.reads) : [], ms: performance.now() - begin, stopped: !finished };
  }

  dispose(): void {
    this.#host = undefined;
  }

  #used(): Host {
    if (!this.#host) throw new NearsideError("disposed", "the model was disposed");
    return this.#host;
  }
}
