// Whether a device must run the golden inputs again. WebAssembly computes as its specification says, so an engine that
// gave the right answers for a package gives them again; drivers of GPUs change unseen, and are proved on every start.
import type { DeviceInfo } from "./device.js";
import { note, recall } from "./notes.js";

/** Milliseconds after which a proof is asked for again. */
const LASTS = 30 * 24 * 3600 * 1000;

interface Proof {
  readonly engine: string;
  readonly at: number;
}

/** Where browsers tell their whole version; elsewhere the user agent has to do. */
interface AgentData {
  getHighEntropyValues(wanted: readonly string[]): Promise<{ readonly fullVersionList?: readonly { brand: string; version: string }[] }>;
}

/** The engine and its version; nothing where it does not tell, and then nothing is remembered. */
async function engine(): Promise<string | undefined> {
  if (typeof navigator === "undefined") return undefined;
  const { userAgent, userAgentData } = navigator as Navigator & { readonly userAgentData?: AgentData };
  const told = await userAgentData?.getHighEntropyValues(["fullVersionList"]).catch(() => undefined);
  const versions = (told?.fullVersionList ?? []).map((v) => `${v.brand} ${v.version}`);
  return [userAgent, ...versions].join("; ");
}

/** The proofs of one package on this engine. */
export interface Proofs {
  /** Whether a device was proved for it. */
  has(info: DeviceInfo): boolean;
  /** Notes that it was. */
  add(info: DeviceInfo): Promise<void>;
}

/** The proofs for the package whose manifest has this digest. */
export async function proofsOf(manifest: string): Promise<Proofs> {
  const here = await engine();
  const key = (info: DeviceInfo) => `${info.variant}, ${info.threads} threads`;
  const place = `proof ${manifest}`;
  const found = (await recall(place)) as { readonly [device: string]: Partial<Proof> | null } | null | undefined;
  return {
    has(info) {
      if (info.kind !== "wasm" || here === undefined) return false;
      const proof = found?.[key(info)];
      const age = Date.now() - (typeof proof?.at === "number" ? proof.at : 0);
      return age >= 0 && age < LASTS && proof?.engine === here;
    },
    async add(info) {
      if (info.kind !== "wasm" || here === undefined) return;
      const proof: Proof = { engine: here, at: Date.now() };
      await note(place, { ...found, [key(info)]: proof });
    },
  };
}
