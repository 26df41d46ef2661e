// Photos to the tensors that image classifiers take.

/** Pixels, RGBA, 8 bits a channel. */
export interface Pixels {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** The pixels of anything that can be drawn. */
export function pixelsOf(image: ImageBitmap | HTMLVideoElement): Pixels {
  const width = image instanceof HTMLVideoElement ? image.videoWidth : image.width;
  const height = image instanceof HTMLVideoElement ? image.videoHeight : image.height;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser gives no canvas");
  context.drawImage(image, 0, 0);
  return { data: context.getImageData(0, 0, width, height).data, width, height };
}

/** Keys' cubic with a = -0.5, as Pillow's BICUBIC. */
function cubic(x: number): number {
  const t = Math.abs(x);
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  if (t < 2) return ((-0.5 * t + 2.5) * t - 4) * t + 2;
  return 0;
}

interface Taps {
  readonly first: number;
  readonly weights: readonly number[];
}

/** For each of `to` samples, which of `from` samples it is made of. When shrinking the kernel widens, against aliasing. */
function taps(from: number, to: number): Taps[] {
  const scale = from / to;
  const widen = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - 2 * widen + 0.5));
    const last = Math.min(from, Math.floor(centre + 2 * widen + 0.5));
    const raw = Array.from({ length: last - first }, (_, k) => cubic((first + k + 0.5 - centre) / widen));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { first, weights: raw.map((w) => w / sum) };
  });
}

const clamp = (x: number) => Math.min(255, Math.max(0, Math.round(x)));

/**
 * The centre square of 224/256 of the short side, bicubic to `size`, `(rgb - 127) / 128`: f32 (1, 3, size, size). This is
 * how EfficientNet-Lite was trained and evaluated.
 */
export function classifierInput(image: Pixels, size: number): Float32Array {
  const { data, width, height } = image;
  const side = Math.max(1, Math.floor((Math.min(width, height) * 224) / 256));
  const left = Math.floor((width - side + 1) / 2);
  const top = Math.floor((height - side + 1) / 2);
  const across = taps(side, size);
  // Rows first, then columns, each rounded to 8 bits, as Pillow does.
  const rows = new Uint8ClampedArray(side * size * 3);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < size; x++) {
      const { first, weights } = across[x] ?? { first: 0, weights: [] };
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += (weights[k] ?? 0) * (data[((top + y) * width + left + first + k) * 4 + c] ?? 0);
        }
        rows[(y * size + x) * 3 + c] = clamp(sum);
      }
    }
  }
  const out = new Float32Array(3 * size * size);
  for (let y = 0; y < size; y++) {
    const { first, weights } = across[y] ?? { first: 0, weights: [] };
    for (let x = 0; x < size; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += (weights[k] ?? 0) * (rows[((first + k) * size + x) * 3 + c] ?? 0);
        out[(c * size + y) * size + x] = (clamp(sum) - 127) / 128;
      }
    }
  }
  return out;
}
