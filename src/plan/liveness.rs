//! Memory from liveness: which activations may lie in the same place.

/// A buffer's life: the kernels from the one that writes it first to the one that reads it last, both inclusive, and its
/// size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

impl Life {
    fn meets(&self, other: &Life) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The most bytes that live at once: no placement needs less.
pub fn optimum(lives: &[Life]) -> u64 {
    lives
        .iter()
        .map(|at| lives.iter().filter(|l| l.first <= at.first && at.first <= l.last).map(|l| l.bytes).sum())
        .max()
        .unwrap_or(0)
}

/// Offsets in one arena, multiples of `align`, and the arena's size: largest first, each at the lowest place that is free
/// during its whole life (greedy by size; Pisarchyk & Lee 2020).
pub fn arena(lives: &[Life], align: u64) -> (Vec<u64>, u64) {
    let mut offsets = vec![0u64; lives.len()];
    let mut placed: Vec<usize> = vec![];
    let mut total = 0;
    for i in by_size(lives) {
        let mut busy: Vec<(u64, u64)> = placed
            .iter()
            .filter(|j| lives[**j].meets(&lives[i]))
            .map(|j| (offsets[*j], offsets[*j].saturating_add(lives[*j].bytes)))
            .collect();
        busy.sort_unstable();
        let mut at = 0u64;
        for (start, end) in busy {
            if at.saturating_add(lives[i].bytes) <= start {
                break;
            }
            at = at.max(end.next_multiple_of(align));
        }
        offsets[i] = at;
        total = total.max(at.saturating_add(lives[i].bytes));
        placed.push(i);
    }
    (offsets, total.next_multiple_of(align))
}

/// For targets where buffers are separate objects: the slot of each life, and the size of each slot. Largest first, each
/// in the first slot that is free during its whole life.
pub fn slots(lives: &[Life]) -> (Vec<usize>, Vec<u64>) {
    let mut slot_of = vec![0usize; lives.len()];
    let mut slots: Vec<(u64, Vec<usize>)> = vec![];
    for i in by_size(lives) {
        let free = slots.iter().position(|(_, held)| held.iter().all(|j| !lives[*j].meets(&lives[i])));
        let slot = free.unwrap_or_else(|| {
            slots.push((lives[i].bytes, vec![]));
            slots.len() - 1
        });
        slots[slot].1.push(i);
        slot_of[i] = slot;
    }
    (slot_of, slots.into_iter().map(|s| s.0).collect())
}

fn by_size(lives: &[Life]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lives[*i].bytes), lives[*i].first));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Life> {
        [(0, 1, 100), (1, 2, 300), (2, 3, 100), (0, 3, 50)]
            .map(|(first, last, bytes)| Life { first, last, bytes })
            .to_vec()
    }

    #[test]
    fn a_chain_reuses_memory() {
        let lives = chain();
        assert_eq!(optimum(&lives), 450);
        let (at, total) = arena(&lives, 1);
        assert_eq!(total, 450);
        for (i, a) in lives.iter().enumerate() {
            for (j, b) in lives.iter().enumerate().filter(|(j, b)| *j != i && b.meets(a)) {
                assert!(at[i] + a.bytes <= at[j] || at[j] + b.bytes <= at[i], "{i} and {j} overlap");
            }
        }
        let (slot, sizes) = slots(&lives);
        assert_eq!(slot, [1, 0, 1, 2]);
        assert_eq!(sizes, [300, 100, 50]);
    }
}
