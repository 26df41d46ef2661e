// A worker that hosts model.wasm, so that the page's own thread never waits for it.
import { toPlain } from "./errors.js";
import { Host, owned, writeAll } from "./host.js";
import type { Answer, Request } from "./messages.js";

interface Scope {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(answer: Answer, transfer?: Transferable[]): void;
}

const scope = globalThis as unknown as Scope;
let host: Host | undefined;
let failed: unknown;

async function run(host: Host, { id, job, part, parts, steps }: Extract<Request, { op: "run" }>): Promise<void> {
  try {
    if (failed !== undefined) throw failed;
    const begin = performance.now();
    writeAll(host.memory, job.writes);
    const finished = steps ? await host.runInSteps() : host.run(part, parts, job.first);
    const reads = finished ? host.read(job.reads) : [];
    scope.postMessage({ id, reads, ms: performance.now() - begin, stopped: !finished }, reads);
  } catch (thrown) {
    scope.postMessage({ id, error: toPlain(thrown) });
  }
}

function start({ id, module, kernels, memory }: Extract<Request, { op: "start" }>): void {
  Host.start(module, kernels, memory).then(
    (started) => {
      host = started;
      scope.postMessage({ id, reads: [], ms: 0, stopped: false });
    },
    (thrown: unknown) => scope.postMessage({ id, error: toPlain(thrown) }),
  );
}

function write({ id, writes, ready }: Extract<Request, { op: "write" }>): void {
  try {
    host?.write(writes, ready);
    const buffers = owned(writes);
    scope.postMessage({ id, reads: buffers, ms: 0, stopped: false }, buffers);
  } catch (thrown) {
    failed ??= thrown;
    scope.postMessage({ id, error: toPlain(thrown) });
  }
}

scope.onmessage = ({ data }) => {
  switch (data.op) {
    case "start":
      start(data);
      break;
    case "write":
      write(data);
      break;
    case "run":
      if (host) void run(host, data);
      break;
    case "stop":
      host?.stop();
      break;
  }
};
