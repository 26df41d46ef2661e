// The sentence demo: how alike sentences are in meaning.
import { type Model, Tensor } from "nearside";
import { byId, h } from "./dom.js";
import type { Engine } from "./engine.js";
import { Tokenizer } from "./tokenizer.js";

const EXAMPLE = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"];

/** More rows than this are no matrix that a person reads. */
const MOST = 16;

/** Milliseconds after the last key before the model runs. */
const PAUSE = 250;

/** Builds the demo into its section and returns what starts it. */
export function sentenceDemo(engine: Engine): () => void {
  const section = byId("sentences", HTMLElement);
  const text = h("textarea", { id: "lines", rows: 7, spellcheck: "false", oninput: () => later() });
  text.value = EXAMPLE.join("\n");
  const matrix = h("div", { class: "matrix", "aria-live": "polite" });
  const card = h("div", { class: "card" }, h("h2", {}, "Similarity"), h("p", { class: "hint" }, "1 means the same, 0 unrelated."), matrix);
  section.replaceChildren(
    h(
      "div",
      { class: "columns" },
      h("div", { class: "stack" }, h("div", { class: "card" }, h("label", { for: "lines" }, h("h2", {}, "Sentences, one a line")), text), engine.panel),
      card,
    ),
  );

  let tokenizer: Promise<Tokenizer> | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let latest = 0;

  function later(): void {
    clearTimeout(timer);
    timer = setTimeout(() => void run(), PAUSE);
  }

  function readTokenizer(): Promise<Tokenizer> {
    tokenizer ??= fetch("assets/tokenizer.json").then(async (r) => {
      if (!r.ok) throw new Error(`the tokenizer is missing (${r.status})`);
      return new Tokenizer((await r.json()) as ConstructorParameters<typeof Tokenizer>[0]);
    });
    return tokenizer;
  }

  async function run(): Promise<void> {
    const sentences = text.value.split("\n").map((s) => s.trim()).filter((s) => s !== "").slice(0, MOST);
    const mine = ++latest;
    if (sentences.length === 0) {
      matrix.replaceChildren();
      return;
    }
    card.setAttribute("aria-busy", "true");
    const vectors = await engine.use(async (model, signal) => embed(model, await readTokenizer(), sentences, signal));
    if (mine !== latest) return;
    card.removeAttribute("aria-busy");
    if (vectors) matrix.replaceChildren(table(sentences, vectors));
  }

  return () => void run();
}

/** The bound of the symbolic dim that stands at `axis` of the first input, or the number there. */
function bound(model: Model, axis: number): number {
  const extent = model.signature.inputs[0]?.shape[axis];
  if (typeof extent === "number") return extent;
  return model.signature.dims.find((d) => d.name === extent)?.max ?? 1;
}

async function embed(model: Model, tokenizer: Tokenizer, sentences: readonly string[], signal: AbortSignal): Promise<Float32Array[]> {
  const batch = bound(model, 0);
  const vectors: Float32Array[] = [];
  for (let at = 0; at < sentences.length; at += batch) {
    const e = tokenizer.encode(sentences.slice(at, at + batch), bound(model, 1));
    const dims = [e.sentences, e.tokens];
    const results = await model.run(
      {
        input_ids: new Tensor("int64", e.ids, dims),
        attention_mask: new Tensor("int64", e.mask, dims),
        token_type_ids: new Tensor("int64", e.types, dims),
      },
      { signal },
    );
    const out = results["sentence_embedding"];
    if (!(out?.data instanceof Float32Array)) throw new Error("this model gives no sentence_embedding");
    const width = out.dims[1] ?? 0;
    for (let i = 0; i < e.sentences; i++) vectors.push(out.data.slice(i * width, (i + 1) * width));
  }
  return vectors;
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] ?? 0, b[i] ?? 0];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / Math.sqrt(aa * bb);
}

function table(sentences: readonly string[], vectors: readonly Float32Array[]): HTMLTableElement {
  const numbers = sentences.map((_, i) => h("th", { scope: "col", "aria-label": sentences[i] }, String(i + 1)));
  const rows = vectors.map((a, i) => {
    const cells = vectors.map((b) => {
      const s = cosine(a, b);
      const cell = h("td", {}, s.toFixed(2));
      cell.style.setProperty("--heat", Math.max(0, s).toFixed(3));
      cell.classList.toggle("hot", s > 0.55);
      return cell;
    });
    return h("tr", {}, h("th", { scope: "row" }, h("span", { class: "number" }, String(i + 1)), h("span", { class: "sentence" }, sentences[i] ?? "")), ...cells);
  });
  return h("table", {}, h("thead", {}, h("tr", {}, h("td", {}), ...numbers)), h("tbody", {}, ...rows));
}
