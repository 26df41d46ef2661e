// Writes the modules that benches/page/peak.ts runs: a loop over twelve independent accumulators.
import { mkdir, writeFile } from "node:fs/promises";
import binaryen from "binaryen";

const VECTORS = 12;

function source(relaxed: boolean): string {
  const names = Array.from({ length: VECTORS }, (_, i) => `$c${i}`);
  const step = (name: string): string => {
    const [x, y, c] = ["(local.get $x)", "(local.get $y)", `(local.get ${name})`];
    const value = relaxed ? `(f32x4.relaxed_madd ${x} ${y} ${c})` : `(f32x4.add (f32x4.mul ${c} ${x}) ${y})`;
    return `(local.set ${name} ${value})`;
  };
  const sum = names.slice(1).reduce((sum, name) => `(f32x4.add ${sum} (local.get ${name}))`, "(local.get $c0)");
  return `(module (func (export "run") (param $n i32) (result f32) (local $x v128) (local $y v128)
    ${names.map((name) => `(local ${name} v128)`).join(" ")}
    (local.set $x (f32x4.splat (f32.convert_i32_u (local.get $n))))
    (local.set $y (f32x4.splat (f32.const 0.5)))
    ${names.map((name, i) => `(local.set ${name} (f32x4.splat (f32.const ${i})))`).join(" ")}
    (loop $again
      ${names.map(step).join(" ")}
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (f32x4.extract_lane 0 ${sum})))`;
}

/** Writes `peak.simd128.wasm` and `peak.relaxed.wasm` into the folder. */
export async function writePeakModules(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, relaxed] of [["simd128", false], ["relaxed", true]] as const) {
    const module = binaryen.parseText(source(relaxed));
    module.setFeatures(binaryen.Features.SIMD128 | binaryen.Features.RelaxedSIMD);
    if (!module.validate()) throw new Error(`the module peak.${name} is not valid`);
    await writeFile(`${folder}/peak.${name}.wasm`, module.emitBinary());
    module.dispose();
  }
}
