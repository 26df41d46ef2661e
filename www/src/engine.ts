// A model behind a demo: loaded when it is first needed, on the device that the user chose, with what happens shown.
import { type LoadOptions, type Model, NearsideError, type PackageFiles, type Progress, type Proof, type Stage, load } from "nearside";
import { bytes, duration, h, median } from "./dom.js";

const STAGES: readonly (readonly [Stage, string])[] = [
  ["manifest", "Manifest"],
  ["download", "Weights"],
  ["compile", "Compile"],
  ["verify", "Check"],
];

/** Runs of one timing, and how long it may take at most. */
const PROOFS: Record<Proof, string> = {
  golden: "it gave the golden outputs",
  remembered: "it gave the golden outputs on an earlier visit",
  none: "the package has no golden outputs",
};

const RUNS = 30;
const TIMING_MS = 4000;

/** Where a demo's model comes from. */
export type Origin = () => Promise<string | PackageFiles>;

/** What the user chose at the top of the page. */
export interface Choice {
  readonly device: NonNullable<LoadOptions["device"]>;
}

export class Engine {
  /** Progress, figures and errors of this model. */
  readonly panel: HTMLElement;
  readonly #stages: HTMLElement;
  readonly #figures: HTMLElement;
  readonly #message: HTMLElement;
  readonly #time: HTMLButtonElement;
  #origin: Origin;
  #choice: () => Choice;
  #model: Promise<Model> | undefined;
  #stop = new AbortController();
  #again: (() => Promise<unknown>) | undefined;

  constructor(origin: Origin, choice: () => Choice) {
    this.#origin = origin;
    this.#choice = choice;
    this.#stages = h("ol", { class: "stages" });
    this.#figures = h("dl", { class: "figures" });
    this.#message = h("div", { class: "message", role: "alert" });
    this.#time = h("button", { type: "button", class: "quiet", disabled: true, onclick: () => void this.#measure() }, "Time it");
    this.panel = h(
      "aside",
      { class: "card engine", "aria-label": "The model" },
      h("div", { class: "row" }, h("h2", {}, "The model"), this.#time),
      this.#stages,
      this.#figures,
      this.#message,
    );
    this.#showStages(undefined);
  }

  /** Forgets the model; the next use loads it anew, on the device chosen then. */
  reset(origin?: Origin): void {
    if (origin) this.#origin = origin;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#model?.then((m) => m.dispose()).catch(() => undefined);
    this.#model = undefined;
    this.#again = undefined;
    this.#time.disabled = true;
    this.#figures.replaceChildren();
    this.#message.replaceChildren();
    this.#showStages(undefined);
  }

  /** Runs `work` with the model. Errors are shown; `undefined` comes back then. */
  async use<T>(work: (model: Model, signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const { signal } = this.#stop;
    try {
      this.#message.replaceChildren();
      const model = await (this.#model ??= this.#load(signal));
      const result = await work(model, signal);
      this.#again = () => work(model, signal);
      this.#time.disabled = false;
      this.#showFigures(model);
      return result;
    } catch (thrown) {
      if (!signal.aborted) this.showError(thrown);
      return undefined;
    }
  }

  /** Shows what went wrong, where, and what to do. */
  showError(thrown: unknown): void {
    const known = thrown instanceof NearsideError ? thrown : undefined;
    const what = known?.what ?? (thrown instanceof Error ? thrown.message : String(thrown));
    const rest = [known?.place, known?.help].filter((s) => s !== undefined);
    this.#message.replaceChildren(h("strong", {}, what), ...rest.map((s) => h("p", {}, s)));
  }

  async #load(signal: AbortSignal): Promise<Model> {
    try {
      const from = await this.#origin();
      const onProgress = (p: Progress) => {
        if (!signal.aborted) this.#showStages(p);
      };
      return await load(from, { device: this.#choice().device, signal, onProgress });
    } catch (thrown) {
      this.#model = undefined;
      throw thrown;
    }
  }

  #showStages(p: Progress | undefined): void {
    const now = STAGES.findIndex(([stage]) => stage === p?.stage);
    const done = p?.stage === "ready";
    this.#stages.replaceChildren(
      ...STAGES.map(([stage, name], i) => {
        const state = done || i < now ? "done" : i === now ? "now" : "todo";
        const part = stage === "download" && i === now && p && p.total > 0;
        const label = part ? `${bytes(p.loaded)} of ${bytes(p.total)}` : "";
        const bar = h("progress", { max: 1, "aria-label": name, value: state === "done" ? 1 : part ? p.loaded / p.total : state === "now" ? undefined : 0 });
        return h("li", { class: state }, h("span", {}, name), bar, h("small", {}, label));
      }),
    );
  }

  #showFigures(model: Model): void {
    const stats = model.stats();
    const { device } = stats;
    const { name, version } = model.signature;
    const adapter = device.adapter === undefined || device.adapter === "" ? "" : `, ${device.adapter}`;
    const code = device.variant === undefined ? "" : ` (${device.variant.replace(" + threads", "")}), ${device.threads} thread${device.threads === 1 ? "" : "s"}`;
    const where = device.kind === "webgpu" ? `WebGPU${adapter}` : `WebAssembly${code}`;
    const { hits, misses, state, reason } = stats.cache;
    const cached = hits > 0 ? `${hits} of ${hits + misses} chunks from this browser's cache` : state === "on" ? "kept in this browser's cache" : (reason ?? "not cached");
    const rows: (readonly [string, string | undefined])[] = [
      ["Model", `${name} ${version}`],
      ["Device", where],
      ["Last run", stats.lastRun === undefined ? undefined : duration(stats.lastRun.ms)],
      ["Loaded in", duration(stats.load.total)],
      ["Memory", `${bytes(stats.memory.total)} (weights ${bytes(stats.memory.weights)})`],
      ["Weights", hits + misses > 0 ? cached : undefined],
      ["Checked", PROOFS[stats.proof]],
      ...stats.refused.map((r) => [`Not on ${r.device === "webgpu" ? "WebGPU" : "WebAssembly"}`, r.reason] as const),
    ];
    this.#figures.replaceChildren(
      ...rows.flatMap(([term, value]) => (value === undefined ? [] : [h("dt", {}, term), h("dd", {}, value)])),
    );
  }

  async #measure(): Promise<void> {
    const again = this.#again;
    if (!again) return;
    this.#time.disabled = true;
    this.#time.textContent = "Timing…";
    try {
      const times: number[] = [];
      const begin = performance.now();
      while (times.length < RUNS && performance.now() - begin < TIMING_MS) {
        const start = performance.now();
        await again();
        times.push(performance.now() - start);
      }
      for (const old of this.#figures.querySelectorAll(".timed")) old.remove();
      this.#figures.append(
        h("dt", { class: "timed" }, `Median of ${times.length} runs`),
        h("dd", { class: "timed" }, `${duration(median(times))} (fastest ${duration(Math.min(...times))})`),
      );
    } catch (thrown) {
      this.showError(thrown);
    } finally {
      this.#time.textContent = "Time it";
      this.#time.disabled = false;
    }
  }
}

/** The newest version of a model on the server that serves this page, or the one named by `?models=`. */
export function published(name: string): Origin {
  return async () => {
    const base = new URL(new URLSearchParams(location.search).get("models") ?? "./", location.href);
    const url = new URL(`v2/models/${name}`, base);
    const response = await fetch(url);
    if (!response.ok) {
      throw new NearsideError("not-found", `the server has no model ${name} (${response.status})`, { place: url.href, help: "publish it: nearside publish" });
    }
    const { versions } = (await response.json()) as { readonly versions?: readonly string[] };
    const newest = versions?.at(-1);
    if (newest === undefined) throw new NearsideError("not-found", `${name} has no version`, { place: url.href });
    return new URL(`${name}@${newest}`, base).href;
  };
}
