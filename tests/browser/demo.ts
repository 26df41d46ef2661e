// The check of the demo: Chromium loads the published classifier from the server, and classifies a photo on each device.
// Prints a line of JSON for each device.
// usage: node demo.js CONFIG.json
import { join } from "node:path";
import { launch } from "./lib/chromium.js";
import { readConfig } from "./lib/config.js";
import { ISOLATED, serve } from "./lib/server.js";

interface Config {
  readonly chromium: string;
  readonly root: string;
  readonly pkg: string;
  readonly models: string;
  /** `http://HOST/NAME@VERSION` */
  readonly model: string;
  /** The photo as the model's input, a path of this script's server. */
  readonly input: string;
  readonly labels: readonly string[];
}

const TOP = 5;

async function main(): Promise<void> {
  const config = await readConfig<Config>();
  const server = await serve({
    mounts: {
      "/page": join(config.root, "tests/browser/page"),
      "/js": join(config.root, "target/js"),
      "/pkg": config.pkg,
      "/models": config.models,
    },
    headers: ISOLATED,
  });
  const browser = await launch(config.chromium);
  try {
    for (const device of ["webgpu", "wasm"] as const) {
      const { page, errors } = await browser.page();
      await page.goto(`${server.origin}/page/suite.html`);
      await page.waitForFunction(() => "suite" in window);
      try {
        const run = await page.evaluate((task) => window.suite.inWindow(task), {
          model: config.model,
          device,
          threads: "auto" as const,
          inputs: { input: config.input },
          outputs: ["probs"],
        });
        const probs = run.outputs["probs"] ?? [];
        const best = [...probs.keys()].sort((a, b) => (probs[b] ?? 0) - (probs[a] ?? 0)).slice(0, TOP);
        const top = best.map((i) => [config.labels[i] ?? String(i), Math.round((probs[i] ?? 0) * 1e4) / 1e4]);
        process.stdout.write(`${JSON.stringify({ device: run.device, top })}\n`);
      } catch (error) {
        throw new Error(`${device}: ${String(error)}\n${errors.join("\n")}`);
      }
      await page.close();
    }
  } finally {
    await browser.close();
    await server.close();
  }
}

await main();
