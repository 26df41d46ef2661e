// onnxruntime-web. Each mode imports a copy of the library of its own, because its settings are global to a copy.
import type * as Ort from "onnxruntime-web";
import { fetchBytes, type Inputs, type ModelSpec, type Open, type Runner } from "./runner.js";

const DIST = "/node_modules/onnxruntime-web/dist/";

async function library(bundle: string, copy: string): Promise<typeof Ort> {
  const ort = (await import(`${DIST}${bundle}?${copy}`)) as typeof Ort;
  ort.env.wasm.wasmPaths = DIST;
  ort.env.logLevel = "error";
  return ort;
}

function cpuTensors(ort: typeof Ort, inputs: Inputs): Record<string, Ort.Tensor> {
  const tensors: Record<string, Ort.Tensor> = {};
  for (const [name, { dtype, data, shape }] of inputs) {
    if (data instanceof Float32Array) tensors[name] = new ort.Tensor("float32", data, shape);
    else if (data instanceof BigInt64Array) tensors[name] = new ort.Tensor("int64", data, shape);
    else throw new Error(`input ${name} has type ${dtype}`);
  }
  return tensors;
}

function floats(tensor: Ort.Tensor | undefined): Float32Array {
  if (!(tensor?.data instanceof Float32Array)) throw new Error("the output is not f32");
  return tensor.data;
}

/** A provider as most pages use it: by its name, tensors in and out of JavaScript memory. */
function plain(bundle: string, provider: "wasm" | "webgpu", threads: number): Open {
  return async (model, inputs) => {
    const ort = await library(bundle, `${provider}${threads}`);
    ort.env.wasm.numThreads = threads;
    const session = await ort.InferenceSession.create(await fetchBytes(model.onnx), {
      executionProviders: [provider],
      graphOptimizationLevel: "all",
      freeDimensionOverrides: model.dims,
    });
    const feeds = cpuTensors(ort, inputs);
    return {
      run: async () => floats((await session.run(feeds, [model.output]))[model.output]),
      dispose: () => session.release(),
    };
  };
}

/** The CPU provider with this many threads. */
export const ortWasm = (threads: number): Open => plain("ort.wasm.bundle.min.mjs", "wasm", threads);

export const ortWebgpu: Open = plain("ort.webgpu.bundle.min.mjs", "webgpu", 1);

/**
 * The WebGPU provider with graph capture, which wants the provider as an object, inputs in buffers of the caller's that stay
 * the same, and outputs on the GPU. A run uploads the inputs and reads the output back, as in the other modes.
 */
export const ortCapture: Open = async (model, inputs) => {
  const ort = await library("ort.webgpu.bundle.min.mjs", "capture");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(await fetchBytes(model.onnx), {
    executionProviders: [{ name: "webgpu" }],
    graphOptimizationLevel: "all",
    freeDimensionOverrides: model.dims,
    enableGraphCapture: true,
    preferredOutputLocation: "gpu-buffer",
  });
  const device = (await ort.env.webgpu.device) as GPUDevice;
  return captured(ort, session, device, model, inputs);
};

function captured(
  ort: typeof Ort,
  session: Ort.InferenceSession,
  device: GPUDevice,
  model: ModelSpec,
  inputs: Inputs,
): Runner {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const padded = (bytes: number): number => Math.ceil(bytes / 16) * 16;
  const uploads: Array<readonly [GPUBuffer, ArrayBuffer]> = [];
  const feeds: Record<string, Ort.Tensor> = {};
  for (const [name, { data, shape }] of inputs) {
    const buffer = device.createBuffer({ size: padded(data.byteLength), usage });
    const dataType = data instanceof BigInt64Array ? "int64" : "float32";
    uploads.push([buffer, data.slice().buffer as ArrayBuffer]);
    feeds[name] = ort.Tensor.fromGpuBuffer(buffer, { dataType, dims: [...shape] });
  }
  let readback: GPUBuffer | undefined;
  return {
    async run() {
      for (const [buffer, data] of uploads) device.queue.writeBuffer(buffer, 0, data);
      const output = (await session.run(feeds, [model.output]))[model.output];
      if (!output) throw new Error(`no output ${model.output}`);
      const size = 4 * output.size;
      readback ??= device.createBuffer({ size: padded(size), usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(output.gpuBuffer as GPUBuffer, 0, readback, 0, size);
      device.queue.submit([encoder.finish()]);
      await readback.mapAsync(GPUMapMode.READ, 0, size);
      const result = new Float32Array(readback.getMappedRange(0, size).slice(0));
      readback.unmap();
      return result;
    },
    async dispose() {
      await session.release();
      for (const [buffer] of uploads) buffer.destroy();
      readback?.destroy();
    },
  };
}
