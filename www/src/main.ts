// The page: three demos, one device.
import "./style.css";
import { compileDemo } from "./compile.js";
import { byId } from "./dom.js";
import { type Choice, Engine, published } from "./engine.js";
import { photoDemo } from "./photo.js";
import { sentenceDemo } from "./sentences.js";

const device = byId("device", HTMLSelectElement);

const choice = (): Choice => ({ device: device.value === "webgpu" || device.value === "wasm" ? device.value : "auto" });

const classifier = new Engine(published("efficientnet-lite0"), choice);
const encoder = new Engine(published("minilm"), choice);
const own = new Engine(() => Promise.reject(new Error("no model was dropped")), choice);

const demos: Readonly<Record<string, { readonly engine: Engine; readonly start: () => void; started: boolean }>> = {
  photo: { engine: classifier, start: photoDemo(classifier), started: false },
  sentences: { engine: encoder, start: sentenceDemo(encoder), started: false },
  compile: { engine: own, start: () => undefined, started: false },
};
compileDemo(own);

function open(name: string, focus: boolean): void {
  for (const id of Object.keys(demos)) {
    const tab = byId(`tab-${id}`, HTMLButtonElement);
    const selected = id === name;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    byId(id, HTMLElement).hidden = !selected;
    if (selected && focus) tab.focus();
  }
  const demo = demos[name];
  if (demo && !demo.started) {
    demo.started = true;
    demo.start();
  }
}

const names = Object.keys(demos);
for (const [i, name] of names.entries()) {
  const tab = byId(`tab-${name}`, HTMLButtonElement);
  tab.addEventListener("click", () => history.replaceState(null, "", `#${name}`));
  tab.addEventListener("click", () => open(name, false));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + names.length, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    open(names[to % names.length] ?? name, true);
  });
}

device.addEventListener("change", () => {
  for (const demo of Object.values(demos)) {
    if (!demo.started) continue;
    demo.engine.reset();
    demo.start();
  }
});

const theme = byId("theme", HTMLButtonElement);
const stored = localStorage.getItem("theme");
if (stored !== null) document.documentElement.dataset["theme"] = stored;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset["theme"] = dark ? "light" : "dark";
  localStorage.setItem("theme", dark ? "light" : "dark");
});

open(names.includes(location.hash.slice(1)) ? location.hash.slice(1) : "photo", false);
