// RTen, compiled from benches/rten-wasm with relaxed SIMD. It runs on the calling thread.
import { fetchBytes, type Open } from "./runner.js";

interface RtenSession {
  set_f32(name: string, shape: Uint32Array, data: Float32Array): void;
  set_i32(name: string, shape: Uint32Array, data: Int32Array): void;
  run(): Float32Array;
  free(): void;
}
interface RtenModule {
  default(): Promise<void>;
  Session: new (onnx: Uint8Array, output: string) => RtenSession;
}

const MODULE = "/rten/rten_wasm.js";

export const rten: Open = async (model, inputs) => {
  const module = (await import(MODULE)) as RtenModule;
  await module.default();
  const session = new module.Session(await fetchBytes(model.onnx), model.output);
  const shapes = new Map([...inputs].map(([name, { shape }]) => [name, Uint32Array.from(shape)]));
  return {
    async run() {
      for (const [name, { data, dtype }] of inputs) {
        const shape = shapes.get(name) ?? new Uint32Array();
        if (data instanceof Float32Array) session.set_f32(name, shape, data);
        else if (data instanceof BigInt64Array) session.set_i32(name, shape, Int32Array.from(data, Number));
        else throw new Error(`input ${name} has type ${dtype}`);
      }
      return session.run();
    },
    dispose: async () => session.free(),
  };
};
