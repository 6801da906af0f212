//! The keys below a prefix, as far as they are known, and the instances that they are.

use std::collections::BTreeMap;

use super::printable;
use super::wire::{At, Change, Entry, Listed};
use crate::discovery::entry::EntryError;
use crate::discovery::target::Target;
use crate::service::discovered::MAX_INSTANCES;

/// Keys that a fault spells out; the others it counts.
const KEYS_REPORTED: usize = 2;

#[derive(Default)]
pub struct Keys {
    known: BTreeMap<Vec<u8>, Known>,
    /// The state that they are of, which grows with every change.
    pub at: At,
    /// How many keys there are. More than are known where there are too many.
    count: u64,
}

/// What is known of a key: an instance, why it is none, or both where it was one before.
#[derive(Default)]
struct Known {
    target: Option<Target>,
    fault: Option<EntryError>,
}

impl Keys {
    /// All of them, anew.
    pub fn replace(&mut self, listed: Listed) {
        let mut before = std::mem::take(&mut self.known);
        for (key, outcome) in listed.entries {
            let known = before.remove(&key).unwrap_or_default().after(outcome);
            self.known.insert(key, known);
        }
        self.at = listed.at;
        self.count = listed.count.max(self.known.len() as u64);
    }

    pub fn change(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes {
            match change {
                Change::Put(entry) => self.put(entry),
                Change::Delete(key) => {
                    self.count -= u64::from(self.known.remove(&key).is_some());
                }
            }
        }
        self.at.revision = self.at.revision.max(revision);
    }

    fn put(&mut self, (key, outcome): Entry) {
        match self.known.get_mut(&key) {
            Some(known) => *known = std::mem::take(known).after(outcome),
            None => {
                self.count += 1;
                // One more would only be left out.
                if self.known.len() < MAX_INSTANCES {
                    self.known.insert(key, Known::default().after(outcome));
                }
            }
        }
    }

    /// Whether there are more than are known, so that changes tell less than asking again.
    pub fn are_too_many(&self) -> bool {
        self.count > self.known.len() as u64
    }

    /// Whether the store has the same state, as far as counting tells.
    pub fn agree_with(&self, listed: &Listed) -> bool {
        self.follow_on(listed.at) && listed.count == self.count
    }

    /// Whether a store in that state is the same that these came from, and not one that was set back or
    /// put in its place.
    pub fn follow_on(&self, at: At) -> bool {
        at.cluster == self.at.cluster && at.revision >= self.at.revision
    }

    /// The instances, in the order of their keys. `None` if there are keys, but not one of them is an instance.
    pub fn targets(&self) -> Option<Vec<Target>> {
        let targets: Vec<Target> = self.known.values().filter_map(|known| known.target.clone()).collect();
        (!targets.is_empty() || self.known.is_empty()).then_some(targets)
    }

    pub fn fault(&self) -> Option<String> {
        let faulty =
            self.known.iter().filter_map(|(key, known)| known.fault.as_ref().map(|fault| (key, fault)));
        let mut texts: Vec<String> = faulty
            .clone()
            .take(KEYS_REPORTED)
            .map(|(key, fault)| format!("the key {}: {fault}", printable(&String::from_utf8_lossy(key))))
            .collect();
        match faulty.count().saturating_sub(KEYS_REPORTED) {
            0 => {}
            more => texts.push(format!("and {more} more keys")),
        }
        if self.are_too_many() {
            let left_out = self.count - self.known.len() as u64;
            texts.push(format!("{left_out} keys beyond the first {MAX_INSTANCES} are left out"));
        }
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

impl Known {
    /// A value that is no instance doesn't end the one that its key was before.
    fn after(self, outcome: Result<Target, EntryError>) -> Known {
        match outcome {
            Ok(target) => Known { target: Some(target), fault: None },
            Err(fault) => Known { target: self.target, fault: Some(fault) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::entry;

    fn entry(key: &str, value: &str) -> Entry {
        (key.as_bytes().to_vec(), entry::target(value.as_bytes()))
    }

    fn listed(revision: u64, entries: Vec<Entry>) -> Listed {
        let count = entries.len() as u64;
        Listed { at: At { cluster: 1, revision }, entries, count }
    }

    fn authorities(keys: &Keys) -> Option<Vec<String>> {
        keys.targets().map(|targets| targets.iter().map(|target| target.authority.to_string()).collect())
    }

    #[test]
    fn changes_lead_from_one_state_to_the_next() {
        let mut keys = Keys::default();
        keys.replace(listed(5, vec![entry("b", "h:2"), entry("a", "h:1")]));
        assert_eq!(authorities(&keys), Some(vec!["h:1".to_owned(), "h:2".to_owned()]));
        let changes = vec![
            Change::Put(entry("c", "h:3")),
            Change::Delete(b"a".to_vec()),
            Change::Delete(b"x".to_vec()),
        ];
        keys.change(changes, 7);
        assert_eq!(authorities(&keys), Some(vec!["h:2".to_owned(), "h:3".to_owned()]));
        assert_eq!((keys.at.revision, keys.count), (7, 2));
        assert!(keys.agree_with(&listed(9, vec![entry("b", ""), entry("c", "")])));
        assert!(!keys.agree_with(&listed(9, vec![entry("b", "")])), "one has gone unnoticed");
        assert!(!keys.follow_on(At { cluster: 1, revision: 6 }), "it was set back");
        assert!(!keys.follow_on(At { cluster: 2, revision: 9 }), "it is another");
    }

    #[test]
    fn a_value_that_is_no_instance_keeps_the_last_that_was() {
        let mut keys = Keys::default();
        keys.replace(listed(1, vec![entry("a", "h:1"), entry("b", "nonsense")]));
        assert_eq!(authorities(&keys), Some(vec!["h:1".to_owned()]));
        assert_eq!(keys.fault().as_deref(), Some("the key b: its value is not http://host:port"));
        keys.change(vec![Change::Put(entry("a", "{}"))], 2);
        assert_eq!(authorities(&keys), Some(vec!["h:1".to_owned()]));
        keys.replace(listed(3, vec![entry("a", "?"), entry("b", "?"), entry("c", "?")]));
        assert_eq!(authorities(&keys), Some(vec!["h:1".to_owned()]));
        assert!(keys.fault().is_some_and(|fault| fault.ends_with("and 1 more keys")), "{:?}", keys.fault());
        keys.replace(listed(4, vec![entry("b", "?")]));
        assert_eq!(authorities(&keys), None, "nothing is known that could be an empty set");
        keys.replace(listed(5, vec![]));
        assert_eq!((authorities(&keys), keys.fault()), (Some(vec![]), None));
    }

    #[test]
    fn keys_beyond_the_bound_are_counted() {
        let mut keys = Keys::default();
        let all = (1..=MAX_INSTANCES).map(|n| entry(&format!("{n:05}"), &format!("h:{n}"))).collect();
        keys.replace(listed(1, all));
        assert!(!keys.are_too_many());
        keys.change(vec![Change::Put(entry("x", "h:1")), Change::Put(entry("y", "h:1"))], 2);
        assert!(keys.are_too_many());
        assert_eq!(keys.targets().map(|targets| targets.len()), Some(MAX_INSTANCES));
        assert_eq!(keys.fault(), Some(format!("2 keys beyond the first {MAX_INSTANCES} are left out")));
    }
}
