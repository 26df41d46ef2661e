// A server that holds one package, as a folder and as a server of Nearside, and misbehaves on demand.
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Tiny, sha256 } from "./tiny.js";

/** Answers a request itself where it returns true. `n` counts the requests of that path from 1. */
export type Fault = (path: string, n: number, response: ServerResponse, request: IncomingMessage) => boolean;

export interface TestServer {
  readonly origin: string;
  /** Paths that were asked for, with their ranges. */
  readonly asked: string[];
  close(): Promise<void>;
}

export async function serve(tiny: Tiny, fault: Fault = () => false): Promise<TestServer> {
  const manifest = tiny.files["manifest.json"] ?? new Uint8Array();
  const digest = sha256(manifest);
  const paths = new Map<string, Uint8Array>();
  for (const [path, bytes] of Object.entries(tiny.files)) {
    paths.set(`/folder/${path}`, bytes);
    paths.set(`/blobs/sha256/${sha256(bytes)}`, bytes);
  }
  paths.set(`/targets/${digest}.manifest.json`, manifest);
  const version = JSON.stringify({ name: "tiny", versions: ["1.0.0"], platform: "nearside", inputs: [], outputs: [], manifest: digest });
  paths.set("/v2/models/tiny/versions/1.0.0", Buffer.from(version));
  const asked: string[] = [];
  const counts = new Map<string, number>();
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    const range = request.headers.range;
    asked.push(range === undefined ? path : `${path} ${range}`);
    const n = (counts.get(path) ?? 0) + 1;
    counts.set(path, n);
    if (fault(path, n, response, request)) return;
    const bytes = paths.get(path);
    if (!bytes) {
      response.writeHead(404).end();
      return;
    }
    const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
    if (start === undefined || end === undefined) {
      response.writeHead(200, { "content-length": bytes.length }).end(bytes);
      return;
    }
    const piece = bytes.subarray(Number(start), Number(end) + 1);
    response.writeHead(206, { "content-length": piece.length, "content-range": `bytes ${start}-${end}/${bytes.length}` }).end(piece);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    asked,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
