// Runs ONNX's node tests, compiled to packages before, on WebGPU in one page. Prints a line of JSON for each case.
// usage: node conformance.js CONFIG.json
import { join } from "node:path";
import type { Page } from "playwright-core";
import { launch, type WatchedPage } from "./lib/chromium.js";
import { readConfig } from "./lib/config.js";
import { serve } from "./lib/server.js";

interface Config {
  readonly chromium: string;
  readonly root: string;
  /** The folder with one package for each case. */
  readonly packages: string;
  /** `pkg/dist` */
  readonly pkg: string;
  readonly cases: readonly string[];
}

/** How long one case may take, in milliseconds. */
const LIMIT = 60_000;

async function withLimit<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took longer than ${LIMIT / 1000} s`)), LIMIT);
  });
  return Promise.race([work, limit]).finally(() => clearTimeout(timer));
}

async function open(page: Page, origin: string): Promise<void> {
  await page.goto(`${origin}/page/conformance.html`);
  await page.waitForFunction(() => "runCase" in window);
}

async function main(): Promise<void> {
  const config = await readConfig<Config>();
  const server = await serve({
    mounts: {
      "/page": join(config.root, "tests/browser/page"),
      "/js": join(config.root, "target/js"),
      "/pkg": config.pkg,
      "/cases": config.packages,
    },
  });
  const browser = await launch(config.chromium);
  let watched: WatchedPage | undefined;
  try {
    for (const name of config.cases) {
      if (!watched) {
        watched = await browser.page();
        await open(watched.page, server.origin);
      }
      let error: string | undefined;
      try {
        error = await withLimit(watched.page.evaluate((url) => window.runCase(url), `/cases/${name}`));
      } catch (thrown) {
        error = [String(thrown), ...watched.errors].join("\n");
        await watched.page.close().catch(() => undefined);
        watched = undefined;
      }
      process.stdout.write(`${JSON.stringify({ case: name, passed: error === undefined, error })}\n`);
    }
  } finally {
    await browser.close();
    await server.close();
  }
}

await main();
