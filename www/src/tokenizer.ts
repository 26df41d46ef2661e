// WordPiece as BERT has it, from a tokenizer.json.

/** Token ids, one array a sentence; all as long as the longest. */
export interface Encoded {
  readonly ids: BigInt64Array;
  readonly mask: BigInt64Array;
  readonly types: BigInt64Array;
  readonly sentences: number;
  readonly tokens: number;
}

interface TokenizerFile {
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly unk_token: string;
    readonly continuing_subword_prefix: string;
    readonly max_input_chars_per_word: number;
  };
  readonly normalizer: { readonly lowercase: boolean; readonly strip_accents: boolean | null } | null;
}

const CJK = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2ebef}\u{2f800}-\u{2fa1f}]/gu;
const CONTROL = /[^\P{C}\t\n\r]/gu;
const ASCII_PUNCTUATION = "!-/:-@\\[-`{-~";
const WORDS = new RegExp(`[\\p{P}${ASCII_PUNCTUATION}]|[^\\s\\p{P}${ASCII_PUNCTUATION}]+`, "gu");

export class Tokenizer {
  readonly #vocab: ReadonlyMap<string, number>;
  readonly #file: TokenizerFile;
  readonly #cls: number;
  readonly #sep: number;
  readonly #unknown: number;

  constructor(file: TokenizerFile) {
    this.#file = file;
    this.#vocab = new Map(Object.entries(file.model.vocab));
    this.#cls = this.#id("[CLS]");
    this.#sep = this.#id("[SEP]");
    this.#unknown = this.#id(file.model.unk_token);
  }

  #id(token: string): number {
    const id = this.#vocab.get(token);
    if (id === undefined) throw new Error(`the vocabulary has no ${token}`);
    return id;
  }

  /** The sentences with their markers, cut to `most` tokens each. */
  encode(sentences: readonly string[], most: number): Encoded {
    const all = sentences.map((s) => [this.#cls, ...this.#pieces(s).slice(0, most - 2), this.#sep]);
    const tokens = Math.max(...all.map((ids) => ids.length));
    const make = () => new BigInt64Array(all.length * tokens);
    const out = { ids: make(), mask: make(), types: make(), sentences: all.length, tokens };
    all.forEach((ids, row) => {
      ids.forEach((id, i) => {
        out.ids[row * tokens + i] = BigInt(id);
        out.mask[row * tokens + i] = 1n;
      });
    });
    return out;
  }

  #pieces(sentence: string): number[] {
    const { lowercase, strip_accents } = this.#file.normalizer ?? { lowercase: false, strip_accents: false };
    let text = sentence.replace(/[\0\ufffd]/g, "").replace(CONTROL, "").replace(CJK, " $& ");
    if (strip_accents ?? lowercase) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    if (lowercase) text = text.toLowerCase();
    return (text.match(WORDS) ?? []).flatMap((word) => this.#word(word));
  }

  /** The longest piece of the vocabulary first, then the rest of the word; all or nothing. */
  #word(word: string): number[] {
    const { continuing_subword_prefix: prefix, max_input_chars_per_word: longest } = this.#file.model;
    const letters = [...word];
    if (letters.length > longest) return [this.#unknown];
    const ids: number[] = [];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length;
      let id: number | undefined;
      for (; end > start; end--) {
        id = this.#vocab.get((start > 0 ? prefix : "") + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.#unknown];
      ids.push(id);
      start = end;
    }
    return ids;
  }
}
