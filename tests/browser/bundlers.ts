// The packed npm package as its users take it: bundled by webpack, by Vite, and from a script tag, each without any
// configuration, under a Content-Security-Policy that allows no more than WebAssembly.
import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Browser } from "./lib/chromium.js";
import { ISOLATED, serve } from "./lib/server.js";

export interface Project {
  readonly browser: Browser;
  /** The root of the repository. */
  readonly root: string;
  /** The classifier's address. */
  readonly model: string;
  /** Its input, float32 [1, 3, 224, 224], and its output. */
  readonly input: ArrayLike<number>;
  readonly expected: ArrayLike<number>;
}

/** What a project is made of, beside `node_modules/nearside`. */
interface Kind {
  readonly files: Readonly<Record<string, string>>;
  /** Builds it, in its folder. */
  readonly build?: readonly string[];
  /** What is served: a folder of the project. */
  readonly dist: string;
}

const TOLERANCE = 1e-4;
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src *";
const run = promisify(execFile);

/** The user's code; `from` is where it imports the package from. */
const code = (from: string): string => `import { load, Tensor } from "${from}";
globalThis.classify = async (url, options, pixels) => {
  const model = await load(url, options);
  const { probs } = await model.run({ input: new Tensor("float32", new Float32Array(pixels), [1, 3, 224, 224]) });
  const { kind, threads } = model.device;
  model.dispose();
  return { kind, threads, probs: Array.from(probs.data) };
};
`;
const html = (script: string): string => `<!doctype html><title>Project</title>${script}\n`;

const KINDS: Readonly<Record<string, Kind>> = {
  webpack: {
    files: {
      "src/index.js": code("nearside"),
      "dist/index.html": html('<script defer src="main.js"></script>'),
    },
    build: ["node_modules/webpack-cli/bin/cli.js", "--mode", "production"],
    dist: "dist",
  },
  Vite: {
    files: { "src/main.js": code("nearside"), "index.html": html('<script type="module" src="/src/main.js"></script>') },
    build: ["node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"],
    dist: "dist",
  },
  "a script tag": {
    files: {
      "main.js": code("./node_modules/nearside/dist/index.js"),
      "index.html": html('<script type="module" src="main.js"></script>'),
    },
    dist: ".",
  },
};

/** The tests by name; each returns what is printed. */
export function bundlerTests(project: Project): Map<string, () => Promise<string>> {
  const folder = join(project.root, "target/bundlers");
  let packed: Promise<string> | undefined;
  const tests = Object.entries(KINDS).map(([name, kind]) => {
    const test = async (): Promise<string> => {
      packed ??= pack(project.root, folder);
      const app = join(folder, name.replaceAll(" ", "-").toLowerCase());
      await create(app, kind, await packed);
      if (kind.build) {
        const [script, ...words] = kind.build;
        await run(process.execPath, [join(project.root, script ?? ""), ...words], { cwd: app });
      }
      return inBrowser(project, join(app, kind.dist));
    };
    return [`the packed package in ${name}`, test] as const;
  });
  return new Map(tests);
}

/** Packs the npm package; returns the tarball's path. */
async function pack(root: string, folder: string): Promise<string> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const npm = ["pack", "--workspace", "pkg", "--ignore-scripts", "--json", "--pack-destination", folder];
  const { stdout } = await run("npm", npm, { cwd: root, shell: process.platform === "win32" });
  const [tarball] = JSON.parse(stdout) as readonly { readonly filename: string }[];
  if (!tarball) throw new Error("npm packed nothing");
  return join(folder, tarball.filename);
}

async function create(app: string, kind: Kind, tarball: string): Promise<void> {
  const installed = join(app, "node_modules/nearside");
  await mkdir(installed, { recursive: true });
  await run("tar", ["-xzf", tarball, "-C", installed, "--strip-components", "1"]);
  const files = { "package.json": JSON.stringify({ private: true, type: "module" }), ...kind.files };
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(app, name, ".."), { recursive: true });
    await writeFile(join(app, name), text);
  }
}

/** Classifies on each device from a server of the project's own. */
async function inBrowser(project: Project, folder: string): Promise<string> {
  const headers = { ...ISOLATED, "Content-Security-Policy": POLICY };
  const server = await serve({ mounts: { "/": folder }, headers });
  const { page, errors } = await project.browser.page();
  try {
    await page.goto(`${server.origin}/index.html`);
    await page.waitForFunction(() => "classify" in window, undefined, { timeout: 10_000 });
    const said: string[] = [];
    for (const options of [{ device: "wasm", threads: 2 }, { device: "webgpu", threads: 1 }]) {
      const answer = await page.evaluate(
        ([url, options, pixels]) => window.classify(url, options, pixels),
        [project.model, options, Array.from(project.input)] as const,
      );
      const differences = answer.probs.map((p, i) => Math.abs(p - (project.expected[i] ?? Number.NaN)));
      const most = Math.max(...differences);
      const where = `${answer.kind}${answer.kind === "wasm" ? answer.threads : ""}`;
      if (answer.kind !== options.device || answer.threads !== options.threads) throw new Error(`it ran on ${where}`);
      if (!(most <= TOLERANCE)) throw new Error(`${where} differs by ${most}, more than ${TOLERANCE}`);
      said.push(`${where} ${most.toExponential(1)}`);
    }
    return `max abs difference to ONNX Runtime: ${said.join(", ")}`;
  } catch (error) {
    throw new Error([String(error), ...errors].join("\n"));
  } finally {
    await page.close();
    await server.close();
  }
}

declare global {
  interface Window {
    classify(
      url: string,
      options: Readonly<Record<string, unknown>>,
      pixels: readonly number[],
    ): Promise<{ kind: string; threads: number; probs: number[] }>;
  }
}
