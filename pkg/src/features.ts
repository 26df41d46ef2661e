// What this host can do, found out without trying a model.

/** Modules that are valid only where the engine knows one feature. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
];

const valid = (module: readonly number[]) => WebAssembly.validate(new Uint8Array(module));

export const hasSimd = (): boolean => valid(SIMD);

export const hasRelaxedSimd = (): boolean => valid(RELAXED);

/** Whether threads over one memory are to be had: a page must be cross-origin isolated for it. */
export function hasThreads(): boolean {
  const isolated = typeof crossOriginIsolated === "boolean" ? crossOriginIsolated : false;
  return isolated && typeof SharedArrayBuffer !== "undefined" && typeof Worker !== "undefined";
}

/** Hardware threads, as far as the engine tells. */
export const cores = (): number => (typeof navigator === "undefined" ? 1 : navigator.hardwareConcurrency || 1);

/** The GPU as `requestAdapter` gives it, or why there is none. */
export interface AdapterFound {
  readonly adapter: GPUAdapter | undefined;
  /** `vendor architecture description`, as far as the browser tells. */
  readonly name: string;
  /** Whether the CPU does the work; such an adapter is several times slower than WebAssembly. */
  readonly software: boolean;
  readonly reason: string;
}

export async function findAdapter(): Promise<AdapterFound> {
  const none = (reason: string): AdapterFound => ({ adapter: undefined, name: "", software: false, reason });
  const gpu = typeof navigator === "undefined" ? undefined : (navigator as { gpu?: GPU }).gpu;
  if (!gpu) return none("there is no WebGPU here");
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (thrown) {
    return none(`requestAdapter failed: ${String(thrown)}`);
  }
  if (!adapter) return none("the browser offers no WebGPU adapter");
  const { vendor, architecture, device, description } = adapter.info;
  const name = [vendor, architecture, device, description].filter((s) => s).join(" ");
  const older = adapter as GPUAdapter & { readonly isFallbackAdapter?: boolean };
  const software =
    adapter.info.isFallbackAdapter || older.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render|software/i.test(name);
  return { adapter, name, software, reason: "" };
}
