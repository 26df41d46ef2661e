//! Random numbers and damage.

/// A small generator of random numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Integers at the edges of types and of common checks.
pub(crate) const EDGES: &[i64] = &[
    0,
    1,
    2,
    -1,
    -2,
    3,
    7,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MAX as i64 + 1,
    i32::MIN as i64,
    u32::MAX as i64,
    1 << 40,
    i64::MAX / 2,
    i64::MAX - 1,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

/// The base-128 form of a number, as protobuf and postcard write it.
fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// No input grows beyond this many bytes.
const MAX_BYTES: usize = 1 << 16;

/// Damages `bytes` in one to eight places; `other` is a second input to take pieces from.
pub(crate) fn damage(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    for _ in 0..1 + random.below(8) {
        once(bytes, other, words, random);
    }
    bytes.truncate(MAX_BYTES);
}

fn once(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let rest = bytes.len() - at;
    let length = random.below(rest.min(32) + 1);
    let any = random.next() as u8;
    match random.below(10) {
        0 | 1 if rest > 0 => bytes[at] ^= 1 << random.below(8),
        2 if rest > 0 => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, any]),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..at + length)),
        5 => {
            let again: Vec<u8> = bytes[at..at + length].repeat(1 + random.below(4));
            bytes.splice(at..at, again);
        }
        6 if !other.is_empty() => {
            let from = random.below(other.len());
            let piece = &other[from..from + random.below((other.len() - from).min(64) + 1)];
            bytes.splice(at..at + length, piece.iter().copied());
        }
        7 if !words.is_empty() => {
            let word = random.pick(words);
            bytes.splice(at..at + if random.one_in(2) { word.len().min(rest) } else { 0 }, word.iter().copied());
        }
        8 => {
            let edge = *random.pick(EDGES);
            let wide = edge.to_le_bytes();
            let width = *random.pick(&[1, 2, 4, 8]);
            for (place, byte) in bytes[at..].iter_mut().zip(&wide[..width]) {
                *place = *byte;
            }
        }
        _ => {
            let number = varint(*random.pick(EDGES) as u64);
            let end = at + random.below(rest.min(10) + 1);
            bytes.splice(at..end, number);
        }
    }
}
