// Compiles a model beside the page, which stays responsive meanwhile.
import { NearsideError, build } from "nearside/compiler";
import type { Outcome, Task } from "./compile-messages.js";

interface Scope {
  onmessage: ((event: MessageEvent<Task>) => void) | null;
  postMessage(outcome: Outcome): void;
}

const scope = globalThis as unknown as Scope;

async function compile({ model, name, dims }: Task): Promise<Outcome> {
  const begin = performance.now();
  try {
    const built = await build(model, { name, version: "1.0.0", dims });
    return { built, ms: performance.now() - begin };
  } catch (thrown) {
    if (!(thrown instanceof NearsideError)) throw thrown;
    const { code, what, place, help } = thrown;
    return { error: { code, what, place, help } };
  }
}

scope.onmessage = ({ data }) => {
  compile(data).then(
    (outcome) => scope.postMessage(outcome),
    (thrown: unknown) => scope.postMessage({ error: { code: "internal", what: String(thrown), place: undefined, help: undefined } }),
  );
};
