// Any ONNX file: compiled in the page, run on made-up or given input, with the build report.
import { type DataType, type Model, NearsideError, type Port, Tensor } from "nearside";
import type { Outcome, Task } from "./compile-messages.js";
import { byId, duration, h } from "./dom.js";
import type { Engine } from "./engine.js";

/** Values of an output that are printed. */
const SHOWN = 12;

/** A model larger than this does not fit beside its compiled form in the memory of most pages. */
const MOST_BYTES = 1 << 30;

/** Builds the demo into its section. */
export function compileDemo(engine: Engine): void {
  const section = byId("compile", HTMLElement);
  const status = h("p", { role: "status", class: "hint" }, "It is compiled here, in this page, and not sent anywhere.");
  const file = h("input", { type: "file", accept: ".onnx", id: "onnx-file", class: "visually-hidden", onchange: () => void take(file.files?.[0]) });
  const dims = h("input", { id: "dims", placeholder: "batch=1..4, sequence=1..128", autocomplete: "off", spellcheck: "false" });
  const drop = h(
    "div",
    { class: "card drop" },
    h("div", { class: "preview small" }, h("p", {}, "Drop an ONNX file here")),
    h("div", { class: "row wrap" }, h("label", { class: "button", for: "onnx-file" }, "Choose a file"), file),
    h("label", { for: "dims", class: "field" }, "Bounds of symbolic dimensions (those not named are 1)", dims),
    status,
  );
  const report = h("pre", { class: "report", tabindex: "0", "aria-label": "Build report" });
  const reportCard = h("div", { class: "card", hidden: true }, h("h2", {}, "Build report"), report);
  const inputs = h("div", { class: "inputs" });
  const outputs = h("div", { class: "outputs", "aria-live": "polite" });
  const runCard = h(
    "div",
    { class: "card", hidden: true },
    h("h2", {}, "Run it"),
    inputs,
    h("button", { type: "button", onclick: () => void run() }, "Run"),
    outputs,
  );
  section.replaceChildren(h("div", { class: "columns" }, h("div", { class: "stack" }, drop, engine.panel), h("div", { class: "stack" }, runCard, reportCard)));

  let worker: Worker | undefined;
  let fields: readonly InputField[] = [];

  function compile(task: Task): Promise<Outcome> {
    worker?.terminate();
    const mine = new Worker(new URL("./compile-worker.ts", import.meta.url), { type: "module", name: "compiler" });
    worker = mine;
    return new Promise<Outcome>((resolve, reject) => {
      mine.onmessage = ({ data }: MessageEvent<Outcome>) => resolve(data);
      mine.onerror = (event) => reject(new Error(event.message || "the compiler did not start"));
      mine.postMessage(task, [task.model.buffer as ArrayBuffer]);
    }).finally(() => mine.terminate());
  }

  async function take(blob: File | undefined): Promise<void> {
    if (!blob) return;
    engine.reset();
    runCard.hidden = reportCard.hidden = true;
    drop.setAttribute("aria-busy", "true");
    status.textContent = `Compiling ${blob.name}…`;
    try {
      if (blob.size > MOST_BYTES) throw new NearsideError("device-limit", "the file is larger than 1 GiB", { help: "use `npx nearside build`" });
      const name = blob.name.replace(/\.onnx$/i, "").toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+/, "") || "model";
      const outcome = await compile({ model: new Uint8Array(await blob.arrayBuffer()), name, dims: parseDims(dims.value) });
      if ("error" in outcome) throw new NearsideError(outcome.error.code, outcome.error.what, outcome.error);
      const { files } = outcome.built;
      status.textContent = `Compiled ${blob.name} in ${duration(outcome.ms)}.`;
      report.textContent = new TextDecoder().decode(files["report.txt"]);
      reportCard.hidden = false;
      engine.reset(() => Promise.resolve({ files }));
      await engine.use((model) => Promise.resolve(prepare(model)));
    } catch (thrown) {
      status.textContent = `${blob.name} was not compiled.`;
      engine.showError(thrown);
    } finally {
      drop.removeAttribute("aria-busy");
    }
  }

  function prepare(model: Model): void {
    fields = model.signature.inputs.map((port) => new InputField(port, model));
    inputs.replaceChildren(...fields.map((f) => f.element));
    outputs.replaceChildren();
    runCard.hidden = false;
  }

  async function run(): Promise<void> {
    runCard.setAttribute("aria-busy", "true");
    await engine.use(async (model, signal) => {
      const feeds: Record<string, Tensor> = {};
      for (const field of fields) feeds[field.port.name] = await field.tensor();
      const results = await model.run(feeds, { signal });
      outputs.replaceChildren(...model.signature.outputs.map((port) => show(port.name, results[port.name])));
    });
    runCard.removeAttribute("aria-busy");
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
    void take(event.dataTransfer?.files[0]);
  });
}

/** `name=min..max` or `name=n`, separated by commas. */
function parseDims(text: string): Record<string, readonly [number, number]> {
  const out: Record<string, readonly [number, number]> = {};
  for (const part of text.split(",").map((s) => s.trim()).filter((s) => s !== "")) {
    const [, name, min, max] = /^([^=]+)=(\d+)(?:\.\.(\d+))?$/.exec(part) ?? [];
    if (name === undefined || min === undefined) {
      throw new NearsideError("invalid-input", `"${part}" is no bound`, { help: "write name=min..max, as in sequence=1..128" });
    }
    out[name.trim()] = [Number(min), Number(max ?? min)];
  }
  return out;
}

function show(name: string, tensor: Tensor | undefined): HTMLElement {
  if (!tensor) return h("p", {}, `${name}: missing`);
  const first: (number | bigint)[] = [...tensor.data.subarray(0, SHOWN)];
  const values = first.map((x) => (typeof x === "bigint" ? x.toString() : Number(x.toPrecision(6)).toString()));
  const rest = tensor.size > SHOWN ? ", …" : "";
  return h("div", { class: "tensor" }, h("h3", {}, `${name}: ${tensor.type} [${tensor.dims.join(", ")}]`), h("code", {}, values.join(", ") + rest));
}

/** One input: made up, or given as numbers. */
class InputField {
  readonly element: HTMLElement;
  readonly #choice: HTMLSelectElement;
  readonly #numbers: HTMLTextAreaElement;
  readonly #dims: readonly number[];

  constructor(
    readonly port: Port,
    model: Model,
  ) {
    const value = (extent: number | string) => (typeof extent === "number" ? extent : (model.signature.dims.find((d) => d.name === extent)?.max ?? 1));
    this.#dims = port.shape.map(value);
    this.#numbers = h("textarea", { rows: 2, hidden: true, "aria-label": `Numbers for ${port.name}`, placeholder: "1, 2.5, -3 …" });
    this.#choice = h(
      "select",
      { "aria-label": `Values of ${port.name}`, onchange: () => void (this.#numbers.hidden = this.#choice.value !== "given") },
      h("option", { value: "random" }, "random"),
      h("option", { value: "zeros" }, "zeros"),
      h("option", { value: "given" }, "numbers…"),
    );
    const title = h("span", {}, h("strong", {}, port.name), ` ${port.type} [${this.#dims.join(", ")}]`);
    this.element = h("div", { class: "field" }, h("div", { class: "row" }, title, this.#choice), this.#numbers);
  }

  async tensor(): Promise<Tensor> {
    const count = this.#dims.reduce((n, d) => n * d, 1);
    let values: number[];
    if (this.#choice.value === "given") {
      values = this.#numbers.value.split(/[\s,;[\]]+/).filter((s) => s !== "").map(Number);
      if (values.length !== count || values.some(Number.isNaN)) {
        throw new NearsideError("invalid-input", `${values.length} numbers for ${this.port.name}, which takes ${count}`);
      }
    } else {
      const float = this.port.type.includes("float");
      const one = () => (this.#choice.value === "zeros" ? 0 : float ? Math.random() * 2 - 1 : Math.floor(Math.random() * 2));
      values = Array.from({ length: count }, one);
    }
    return make(this.port.type, values, this.#dims);
  }
}

function make(type: DataType, values: readonly number[], dims: readonly number[]): Tensor {
  if (type === "float16") return new Tensor(type, Uint16Array.from(values, half), dims);
  if (type === "bfloat16") return new Tensor(type, Uint16Array.from(values, (x) => bits(x) >>> 16), dims);
  if (type === "bool") return new Tensor(type, Uint8Array.from(values, (x) => Number(x !== 0)), dims);
  return new Tensor(type, values, dims);
}

const bits = (x: number) => new Uint32Array(Float32Array.of(x).buffer)[0] ?? 0;

/** The bits of the half float nearest to zero's side of `x`; enough for made-up input. */
function half(x: number): number {
  const b = bits(x);
  const exponent = ((b >>> 23) & 255) - 112;
  if (exponent <= 0) return (b >>> 16) & 0x8000;
  if (exponent >= 31) return ((b >>> 16) & 0x8000) | 0x7c00;
  return ((b >>> 16) & 0x8000) | (exponent << 10) | ((b >>> 13) & 0x3ff);
}
