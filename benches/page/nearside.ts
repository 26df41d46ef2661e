// Nearside, through the public interface of its npm package.
import type { Tensor as NearsideTensor } from "nearside";
import type { Open } from "./runner.js";

/** A device with this many threads. */
export function nearside(device: "wasm" | "webgpu", threads: number): Open {
  return async (spec, inputs, keep) => {
    // Loading the library counts as time to the first answer.
    const { Tensor, load } = await import("nearside");
    const model = await load(new URL(spec.package, location.href).href, { device, threads, cache: keep ? "cache" : "none" });
    const feeds: Record<string, NearsideTensor> = {};
    for (const [name, { data, shape, dtype }] of inputs) {
      if (data instanceof Float32Array) feeds[name] = new Tensor("float32", data, shape);
      else if (data instanceof BigInt64Array) feeds[name] = new Tensor("int64", data, shape);
      else throw new Error(`input ${name} has type ${dtype}`);
    }
    return {
      async run() {
        const outputs = await model.run(feeds);
        const data = outputs[spec.output]?.data;
        if (!(data instanceof Float32Array)) throw new Error(`output ${spec.output} is not f32`);
        return data;
      },
      dispose: async () => model.dispose(),
    };
  };
}
