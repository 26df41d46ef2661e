// What a model needs of a device.
import type { Bound } from "./runtime.js";
import type { DataLocation, Tensor } from "./tensor.js";

export type DeviceKind = "webgpu" | "wasm";

/** The device that runs a model. */
export interface DeviceInfo {
  readonly kind: DeviceKind;
  /** What the browser tells of the GPU. */
  readonly adapter?: string;
  /** The variant of model.wasm. */
  readonly variant?: "simd128" | "relaxed-simd" | "relaxed-simd + threads";
  readonly threads: number;
}

/** Bytes that a model takes on its device. */
export interface Memory {
  readonly weights: number;
  readonly activations: number;
  readonly total: number;
}

/** What a run gave. */
export interface RunResult {
  readonly outputs: readonly Tensor[];
  /** Milliseconds that the device took, where that is known. */
  readonly deviceMs: number;
}

export type OutputLocation = Exclude<DataLocation, "none">;

export interface Device {
  readonly info: DeviceInfo;
  readonly memory: Memory;
  /** Whether a run may begin before all weights are written: then it waits for those that it reads. */
  readonly streaming: boolean;
  /** Puts proved bytes of a pack in their places. The buffer is the device's, until it gives it to `spare`. */
  write(pack: number, bytes: Uint8Array<ArrayBuffer>, offset: number, spare: (buffer: ArrayBuffer) => void): void | Promise<void>;
  /** Settles when everything but the weights is ready. */
  ready(): Promise<void>;
  run(inputs: readonly Tensor[], bound: Bound, locations: readonly OutputLocation[], signal?: AbortSignal): Promise<RunResult>;
  /**
   * Makes runs faster between two of them, where the device can. Fails where `prove` does, which runs the golden inputs
   * afterwards: then the device computes something else, and is not to be used any more.
   */
  tune?(prove: () => Promise<void>): Promise<void>;
  /** Does without what `tune` found, from the next start on. */
  distrust?(): Promise<void>;
  /** Counts of the session and its last run, where the device keeps them. */
  counters?(): RunCounters | undefined;
  dispose(): void;
}

/** What a session on the GPU has made, and what its last run did. */
export interface RunCounters {
  readonly pipelines: number;
  readonly bindGroups: number;
  readonly buffers: number;
  /** Bytes of all buffers. */
  readonly peakBytes: number;
  readonly dispatches: number;
  readonly submits: number;
  readonly bindGroupsInRun: number;
  readonly buffersInRun: number;
  /** Dispatches that run another shader than the default, because it is faster on this adapter. */
  readonly tuned: number;
  /** Whether that was found out: `not needed`, `not yet`, `under way`, `done`, or why it failed. */
  readonly tuning: string;
}
