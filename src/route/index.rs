//! A hash table from (parent, label) to a number, made once and then only read: the edges of the path
//! trees and of the host names.
//!
//! Keys are the configuration's; look-ups come from outside. Since look-ups add nothing, a client
//! can't make them collide with each other, and the hash needs no secret.

/// Marks a free slot.
const FREE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// Places in `entries`; a power of two of them, at most half in use, so that probing ends.
    slots: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    parent: u32,
    target: u32,
    label: Box<str>,
}

impl Index {
    pub(super) fn new() -> Self {
        Index { entries: Vec::new(), slots: vec![FREE; 16] }
    }

    /// The target of (parent, label).
    pub(super) fn find(&self, parent: u32, label: &str) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let hash = hash(parent, label.as_bytes());
        let mut slot = self.first_slot(hash);
        loop {
            let entry = self.entries.get(self.slots[slot] as usize)?;
            if entry.hash == hash && entry.parent == parent && *entry.label == *label {
                return Some(entry.target);
            }
            slot = self.next_slot(slot);
        }
    }

    /// Adds a pair that is not there yet.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn insert(&mut self, parent: u32, label: &str, target: u32) {
        if (self.entries.len() + 1) * 2 > self.slots.len() {
            self.slots = vec![FREE; self.slots.len() * 2];
            for at in 0..self.entries.len() {
                self.place(at);
            }
        }
        let hash = hash(parent, label.as_bytes());
        self.entries.push(Entry { hash, parent, target, label: label.into() });
        self.place(self.entries.len() - 1);
    }

    fn place(&mut self, at: usize) {
        let mut slot = self.first_slot(self.entries[at].hash);
        while self.slots[slot] != FREE {
            slot = self.next_slot(slot);
        }
        self.slots[slot] = u32::try_from(at).expect("a configuration has fewer labels than u32 counts");
    }

    fn first_slot(&self, hash: u64) -> usize {
        // The upper bits are the better mixed ones of a product.
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    fn next_slot(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

/// Multiply and fold, eight bytes at a time: labels are short, and std's keyed hash would cost more
/// than all the rest of a look-up.
fn hash(parent: u32, label: &[u8]) -> u64 {
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
    // Once more, so that the last word reaches the upper bits too.
    mix(mix(state, rest), MULTIPLIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_nothing_else() {
        let mut index = Index::new();
        assert_eq!(index.find(0, "a"), None);
        for number in 0..20_000u32 {
            index.insert(number % 7, &format!("segment-{number}"), number);
        }
        for number in 0..20_000u32 {
            let label = format!("segment-{number}");
            assert_eq!(index.find(number % 7, &label), Some(number));
            assert_eq!(index.find(number % 7 + 1, &label), None);
            assert_eq!(index.find(number % 7, &label[1..]), None);
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
        let longest = index.slots.split(|&slot| slot == FREE).map(<[u32]>::len).max();
        assert!(longest < Some(200), "{longest:?}");
    }
}
