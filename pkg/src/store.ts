// The page's side of the files that stay between visits: in the origin private file system, which a worker reads and
// writes. Reading there costs a tenth of what the Cache API takes, and less than the HTTP cache.

/** A request to the worker; its answer carries the same `id`. Files are named by their digests. */
export type StoreRequest = { readonly id: number; readonly file: string } & (
  | { readonly op: "length" }
  | { readonly op: "read"; readonly at: number; readonly into: ArrayBuffer }
  | { readonly op: "write"; readonly at: number; readonly bytes: Uint8Array }
);

type Value = number | Uint8Array | undefined;

export type StoreAnswer =
  | { readonly id: number; readonly value: Value }
  | { readonly id: number; readonly error: { readonly name: string; readonly message: string } };

interface Call {
  resolve(value: Value): void;
  reject(error: Error): void;
}

/** Why files cannot stay here, where they cannot. */
export function storeMissing(): string | undefined {
  if (typeof navigator === "undefined" || typeof navigator.storage?.getDirectory !== "function") {
    return "there is no origin private file system here";
  }
  if (typeof Worker === "undefined") return "there are no workers here, which read and write files";
  return undefined;
}

/** Files by name. Calls fail with an error whose name is the engine's (`QuotaExceededError`). */
export class Store {
  #worker: Worker | undefined;
  readonly #calls = new Map<number, Call>();
  #next = 0;
  #resting = false;
  #dead: Error | undefined;

  /** Starts the worker ahead of the first call. */
  start(): void {
    this.#resting = false;
    this.#worker ??= this.#spawn();
  }

  /** Bytes of a file, 0 where there is none. */
  async length(file: string): Promise<number> {
    return (await this.#call({ id: this.#next++, file, op: "length" })) as number;
  }

  /** The bytes of a file from `at` on that fill a buffer, which goes away; fewer at the file's end. */
  async read(file: string, at: number, into: ArrayBuffer): Promise<Uint8Array<ArrayBuffer>> {
    return (await this.#call({ id: this.#next++, file, op: "read", at, into }, [into])) as Uint8Array<ArrayBuffer>;
  }

  /** Writes into a file, which is made where there is none. The bytes are copied before this returns. */
  async write(file: string, at: number, bytes: Uint8Array): Promise<void> {
    await this.#call({ id: this.#next++, file, op: "write", at, bytes });
  }

  /** Ends the worker, which closes its files, when all calls are answered. The next call starts another. */
  rest(): void {
    this.#resting = true;
    if (this.#calls.size > 0) return;
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  #call(request: StoreRequest, transfer: Transferable[] = []): Promise<Value> {
    if (this.#dead) return Promise.reject(this.#dead);
    this.start();
    return new Promise((resolve, reject) => {
      this.#calls.set(request.id, { resolve, reject });
      this.#worker?.postMessage(request, transfer);
    });
  }

  #spawn(): Worker {
    const worker = new Worker(new URL("./store-worker.js", import.meta.url), { type: "module", name: "nearside store" });
    worker.onmessage = ({ data }: MessageEvent<StoreAnswer>) => {
      const call = this.#calls.get(data.id);
      this.#calls.delete(data.id);
      if ("error" in data) call?.reject(Object.assign(new Error(data.error.message), { name: data.error.name }));
      else call?.resolve(data.value);
      if (this.#resting) this.rest();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#dead = new Error(`the store's worker ended: ${event.message || "it did not load"}`);
      for (const call of this.#calls.values()) call.reject(this.#dead);
      this.#calls.clear();
    };
    return worker;
  }
}
