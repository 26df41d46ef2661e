// What tests look into; no entry point of the package.
export { loseDevice } from "./gpu-device.js";
export { remember, remembered, tuningKey } from "./tuning.js";
