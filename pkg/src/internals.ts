// What tests look into; no entry point of the package.
export { loseDevice } from "./gpu-device.js";
export { Host } from "./host.js";
export { proofsOf } from "./proof.js";
export { remember, remembered, tuningKey } from "./tuning.js";
export { Arrived } from "./wasm-device.js";
