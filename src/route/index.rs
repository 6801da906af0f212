//! A hash table from (parent, label) to a place in its owner's own list, made once and then only read:
//! the edges of the path trees and of the host names.
//!
//! The labels stay with the owner, so that a look-up that finds something has already fetched what it
//! leads to. Keys are the configuration's; look-ups come from outside. Since look-ups add nothing, a
//! client can't make them collide with each other, and the hash needs no secret.

#[derive(Debug)]
pub(super) struct Index {
    /// A power of two of them, at most half in use, so that probing ends.
    slots: Vec<Slot>,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    place: u32,
}

const FREE: Slot = Slot { hash: 0, place: u32::MAX };

impl Slot {
    fn is_free(self) -> bool {
        self.place == FREE.place
    }
}

impl Index {
    pub(super) fn new() -> Self {
        Index { slots: vec![FREE; 16], used: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The place of (parent, label); `is_at` says whether a place has that key.
    pub(super) fn find(&self, parent: u32, label: &str, is_at: impl Fn(u32) -> bool) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let hash = hash(parent, label.as_bytes());
        let mut at = self.first(hash);
        loop {
            let slot = self.slots[at];
            if slot.is_free() {
                return None;
            }
            if slot.hash == hash && is_at(slot.place) {
                return Some(slot.place);
            }
            at = self.next(at);
        }
    }

    /// Adds a pair that is not there yet.
    pub(super) fn insert(&mut self, parent: u32, label: &str, place: u32) {
        if (self.used + 1) * 2 > self.slots.len() {
            let larger = vec![FREE; self.slots.len() * 2];
            let slots = std::mem::replace(&mut self.slots, larger);
            slots.into_iter().filter(|slot| !slot.is_free()).for_each(|slot| self.put(slot));
        }
        self.used += 1;
        self.put(Slot { hash: hash(parent, label.as_bytes()), place });
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.first(slot.hash);
        while !self.slots[at].is_free() {
            at = self.next(at);
        }
        self.slots[at] = slot;
    }

    fn first(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

/// Multiply and fold, eight bytes at a time: labels are short, and std's keyed hash would cost more
/// than all the rest of a look-up.
fn hash(parent: u32, label: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(MULTIPLIER);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = mix(u64::from(parent) + 1, (label.len() as u64) << 32);
    let mut words = label.chunks_exact(8);
    for word in &mut words {
        state = mix(state, u64::from_le_bytes(word.try_into().expect("chunks of eight bytes")));
    }
    let rest = words.remainder().iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    // Once more, so that the last word reaches the upper bits too: those are the better mixed ones of a product.
    (mix(mix(state, rest), MULTIPLIER) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An owner whose places are those of a list of keys.
    #[derive(Default)]
    struct Owner {
        keys: Vec<(u32, String)>,
    }

    impl Owner {
        fn insert(&mut self, index: &mut Index, parent: u32, label: String) {
            index.insert(parent, &label, u32::try_from(self.keys.len()).unwrap());
            self.keys.push((parent, label));
        }

        fn find(&self, index: &Index, parent: u32, label: &str) -> Option<u32> {
            index.find(parent, label, |place| {
                let (its_parent, its_label) = &self.keys[place as usize];
                (*its_parent, &**its_label) == (parent, label)
            })
        }
    }

    #[test]
    fn finds_what_was_inserted_and_nothing_else() {
        let (mut index, mut owner) = (Index::new(), Owner::default());
        assert_eq!(owner.find(&index, 0, "a"), None);
        for number in 0..20_000u32 {
            owner.insert(&mut index, number % 7, format!("segment-{number}"));
        }
        for number in 0..20_000u32 {
            let label = format!("segment-{number}");
            assert_eq!(owner.find(&index, number % 7, &label), Some(number));
            assert_eq!(owner.find(&index, number % 7 + 1, &label), None);
            assert_eq!(owner.find(&index, number % 7, &label[1..]), None);
        }
    }

    #[test]
    fn probes_stay_short() {
        let mut index = Index::new();
        for number in 0..100_000u32 {
            index.insert(number / 10, ["users", "orders", "", "1", "v1"][number as usize % 5], number);
            index.insert(u32::MAX - 1, &format!("{number:08}{number:08}"), number);
        }
        // With linear probing at most half full, good hashes leave runs of a few dozen slots.
        let longest = index.slots.split(|slot| slot.is_free()).map(<[Slot]>::len).max();
        assert!(longest < Some(200), "{longest:?}");
    }
}
