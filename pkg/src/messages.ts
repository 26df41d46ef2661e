// What the main thread and a worker that hosts model.wasm say to each other.
import type { PlainError } from "./errors.js";
import type { Job, Write } from "./host.js";

/**
 * A request; its answer carries the same `id`. A write's answer gives its buffers back; where it failed, so does every run
 * after it. `ready` says how many kernels have their weights, then. A run in `steps` waits for these and heeds `stop`; another goes straight
 * through.
 */
export type Request =
  | {
      readonly op: "start";
      readonly id: number;
      readonly module: WebAssembly.Module;
      readonly kernels: number;
      readonly memory: WebAssembly.Memory | undefined;
    }
  | { readonly op: "write"; readonly id: number; readonly writes: readonly Write[]; readonly ready: number }
  | { readonly op: "run"; readonly id: number; readonly job: Job; readonly part: number; readonly parts: number; readonly steps: boolean }
  | { readonly op: "stop" };

export type Answer =
  | { readonly id: number; readonly reads: readonly ArrayBuffer[]; readonly ms: number; readonly stopped: boolean }
  | { readonly id: number; readonly error: PlainError };
