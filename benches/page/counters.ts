// Counts what runtimes ask of WebGPU, by standing before its methods. The counts go to the runner that is current.

export interface Counts {
  dispatches: number;
  submits: number;
  passes: number;
  bindGroups: number;
  buffers: number;
  writes: number;
  pipelines: number;
  /** Bytes of all buffers that are not destroyed, now and at most. */
  bytes: number;
  peakBytes: number;
}

const zero = (): Counts => ({
  dispatches: 0,
  submits: 0,
  passes: 0,
  bindGroups: 0,
  buffers: 0,
  writes: 0,
  pipelines: 0,
  bytes: 0,
  peakBytes: 0,
});

let current = zero();

/** Counts from now on go to `counts`. */
export function countInto(counts: Counts): void {
  current = counts;
}

export const newCounts = zero;

/** Wraps the method so that `before` sees each call's this, arguments and result. */
function watch<T extends object, K extends keyof T>(
  target: T,
  name: K,
  seen: (self: T, result: unknown, args: readonly unknown[]) => void,
): void {
  const original = target[name];
  if (typeof original !== "function") throw new Error(`${String(name)} is not a method`);
  const wrapped = function (this: T, ...args: unknown[]): unknown {
    const result: unknown = Reflect.apply(original, this, args);
    seen(this, result, args);
    return result;
  };
  Object.defineProperty(target, name, { value: wrapped, configurable: true, writable: true });
}

/** Installs the counters; does nothing where there is no WebGPU. */
export function install(): void {
  if (!("gpu" in navigator)) return;
  const owner = new WeakMap<GPUBuffer, Counts>();
  const freed = new WeakSet<GPUBuffer>();
  watch(GPUDevice.prototype, "createBuffer", (_, buffer) => {
    if (!(buffer instanceof GPUBuffer)) return;
    owner.set(buffer, current);
    current.buffers += 1;
    current.bytes += buffer.size;
    current.peakBytes = Math.max(current.peakBytes, current.bytes);
  });
  watch(GPUBuffer.prototype, "destroy", (buffer) => {
    const counts = owner.get(buffer);
    if (counts && !freed.has(buffer)) counts.bytes -= buffer.size;
    freed.add(buffer);
  });
  watch(GPUDevice.prototype, "createBindGroup", () => (current.bindGroups += 1));
  watch(GPUDevice.prototype, "createComputePipeline", () => (current.pipelines += 1));
  watch(GPUDevice.prototype, "createComputePipelineAsync", () => (current.pipelines += 1));
  watch(GPUQueue.prototype, "submit", () => (current.submits += 1));
  watch(GPUQueue.prototype, "writeBuffer", () => (current.writes += 1));
  watch(GPUCommandEncoder.prototype, "beginComputePass", () => (current.passes += 1));
  watch(GPUComputePassEncoder.prototype, "dispatchWorkgroups", () => (current.dispatches += 1));
  watch(GPUComputePassEncoder.prototype, "dispatchWorkgroupsIndirect", () => (current.dispatches += 1));
}
