// Nearside: compiled ONNX models in browsers, workers and Node.
export type { CacheStats } from "./cache.js";
export type { DeviceInfo, DeviceKind, Memory, OutputLocation, RunCounters } from "./device.js";
export { type ErrorCode, NearsideError } from "./errors.js";
export { type LoadOptions, load } from "./load.js";
export type { Model, Refused, RunOptions, Stats } from "./model.js";
export { type Port, type RuntimeModule, type Signature, init } from "./runtime.js";
export type { PackageFiles } from "./source.js";
export type { LoadTimes, Progress, Proof, Stage } from "./start.js";
export { type DataLocation, type DataType, type DataTypes, Tensor, type TensorData } from "./tensor.js";
export type { Threads } from "./wasm-device.js";
