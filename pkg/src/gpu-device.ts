// The GPU, through wgpu in the runtime.
import type { Device } from "./device.js";
import { NearsideError } from "./errors.js";
import type { Manifest, PackageFile } from "./manifest.js";
import type { Package, Runtime, Signature } from "./runtime.js";

export class GpuDevice {
  static start(
    _runtime: Runtime,
    _plan: Package,
    _signature: Signature,
    _manifest: Manifest,
    _read: (file: PackageFile) => Promise<Uint8Array>,
  ): Promise<Device> {
    return Promise.reject(new NearsideError("device-unavailable", "this build of the runtime has no WebGPU", { help: 'load with device "wasm"' }));
  }
}
