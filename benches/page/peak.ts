// The machine's limit: multiply-adds of 128-bit vectors in registers, with nothing else to do.

const VECTORS = 12;
const LOOPS = 2_000_000;

/** GF/s of one thread, with relaxed multiply-add where the engine has it and without. */
export interface Peak {
  readonly simd128: number;
  readonly relaxed: number | null;
}

/** Runs both modules of /js/peak, a few times each, and takes the best. */
export async function measurePeak(): Promise<Peak> {
  const simd128 = await measure("/js/peak.simd128.wasm");
  const relaxed = await measure("/js/peak.relaxed.wasm").catch((error: unknown) => {
    if (error instanceof WebAssembly.CompileError) return null;
    throw error;
  });
  return { simd128, relaxed };
}

async function measure(url: string): Promise<number> {
  const { instance } = await WebAssembly.instantiateStreaming(fetch(url));
  const run = instance.exports["run"];
  if (typeof run !== "function") throw new Error(`${url} exports no function run`);
  let best = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 8; attempt++) {
    const start = performance.now();
    run(LOOPS);
    best = Math.min(best, performance.now() - start);
  }
  const flops = LOOPS * VECTORS * 4 * 2;
  return flops / best / 1e6;
}
