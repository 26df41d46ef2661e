// The photo demo: ImageNet's classes for a picture, a sample, or the camera.
import { Tensor } from "nearside";
import { byId, h } from "./dom.js";
import type { Engine } from "./engine.js";
import { type Pixels, classifierInput, pixelsOf } from "./pixels.js";

const SAMPLES = ["coffee", "camera", "chelsea"] as const;
const TOP = 5;

/** Builds the demo into its section and returns what starts it. */
export function photoDemo(engine: Engine): () => void {
  const section = byId("photo", HTMLElement);
  const preview = h("div", { class: "preview" }, h("p", {}, "Drop a photo here, or paste one"));
  const answers = h("ol", { class: "bars", "aria-live": "polite", "aria-label": "What it shows" });
  const file = h("input", { type: "file", accept: "image/*", id: "photo-file", class: "visually-hidden", onchange: () => void pick(file.files?.[0]) });
  const camera = h("button", { type: "button", onclick: () => void toggleCamera() }, "Use the camera");
  const samples = h(
    "div",
    { class: "samples", role: "group", "aria-label": "Sample photos" },
    ...SAMPLES.map((name) =>
      h("button", { type: "button", class: "sample", "aria-label": `Sample photo: ${name}`, onclick: () => void sample(name) }, h("img", { src: `assets/photos/${name}.png`, alt: "", loading: "lazy" })),
    ),
  );
  const drop = h(
    "div",
    { class: "card drop" },
    preview,
    h("div", { class: "row wrap" }, h("label", { class: "button", for: "photo-file" }, "Choose a photo"), file, camera, samples),
  );
  const result = h("div", { class: "card" }, h("h2", {}, "What it shows"), answers);
  section.replaceChildren(h("div", { class: "columns" }, drop, h("div", { class: "stack" }, result, engine.panel)));

  let labels: Promise<readonly string[]> | undefined;
  let stream: MediaStream | undefined;
  let shown = 0;

  function readLabels(): Promise<readonly string[]> {
    labels ??= fetch("assets/labels.json").then(async (r) => {
      if (!r.ok) throw new Error(`the labels are missing (${r.status})`);
      return (await r.json()) as readonly string[];
    });
    return labels;
  }

  function show(probs: Float32Array, names: readonly string[]): void {
    const best = [...probs.keys()].sort((a, b) => (probs[b] ?? 0) - (probs[a] ?? 0)).slice(0, TOP);
    answers.replaceChildren(
      ...best.map((i) => {
        const p = probs[i] ?? 0;
        const fill = h("div", { class: "fill" });
        fill.style.width = `${(p * 100).toFixed(1)}%`;
        return h("li", {}, h("span", { class: "label" }, names[i] ?? `class ${i}`), h("span", { class: "value" }, `${(p * 100).toFixed(1)} %`), h("div", { class: "track", "aria-hidden": "true" }, fill));
      }),
    );
  }

  async function classify(pixels: Pixels): Promise<void> {
    const mine = ++shown;
    result.setAttribute("aria-busy", "true");
    try {
      await engine.use(async (model, signal) => {
        const input = model.signature.inputs[0];
        const output = model.signature.outputs[0];
        const size = input?.shape[2];
        if (!input || !output || typeof size !== "number") throw new Error("this model is no image classifier");
        const tensor = new Tensor("float32", classifierInput(pixels, size), [1, 3, size, size]);
        const [results, names] = await Promise.all([model.run({ [input.name]: tensor }, { signal }), readLabels()]);
        const probs = results[output.name]?.data;
        if (mine === shown && probs instanceof Float32Array) show(probs, names);
      });
    } finally {
      if (mine === shown) result.removeAttribute("aria-busy");
    }
  }

  async function pick(blob: Blob | undefined): Promise<void> {
    if (!blob) return;
    stopCamera();
    try {
      const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
      const canvas = h("canvas", { width: bitmap.width, height: bitmap.height, role: "img", "aria-label": "Your photo" });
      canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
      preview.replaceChildren(canvas);
      await classify(pixelsOf(bitmap));
      bitmap.close();
    } catch (thrown) {
      engine.showError(thrown instanceof DOMException ? new Error("this file is not a picture that the browser reads") : thrown);
    }
  }

  async function sample(name: string): Promise<void> {
    const response = await fetch(`assets/photos/${name}.png`);
    if (response.ok) await pick(await response.blob());
    else engine.showError(new Error(`the sample ${name} is missing (${response.status})`));
  }

  async function toggleCamera(): Promise<void> {
    if (stream) {
      stopCamera();
      return;
    }
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } } });
      stream = media;
      camera.textContent = "Stop the camera";
      const video = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "Camera" });
      video.muted = true;
      video.srcObject = media;
      preview.replaceChildren(video);
      await video.play();
      while (stream === media) {
        await classify(pixelsOf(video));
        await new Promise(requestAnimationFrame);
      }
    } catch (thrown) {
      stopCamera();
      engine.showError(thrown instanceof DOMException ? new Error(`the camera is not to be had: ${thrown.message}`) : thrown);
    }
  }

  function stopCamera(): void {
    stream?.getTracks().forEach((t) => t.stop());
    stream = undefined;
    camera.textContent = "Use the camera";
  }

  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    void pick(event.dataTransfer?.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (!section.hidden) void pick([...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/")));
  });

  return () => void sample(SAMPLES[0]);
}
