//! How far the items of one batch are: which may begin, and what has come of those that have ended.

use std::collections::BTreeSet;

use super::answer::Answer;
use super::read::Item;

pub struct Board {
    answers: Vec<Option<Answer>>,
    /// For each item how many of those that it waits for have no answer yet.
    waits: Vec<usize>,
    /// For each item those that wait for it.
    dependents: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
}

impl Board {
    pub fn new(items: &[Item]) -> Self {
        let mut dependents = vec![Vec::new(); items.len()];
        for (place, item) in items.iter().enumerate() {
            item.needs.iter().for_each(|need| dependents[*need].push(place));
        }
        let waits: Vec<usize> = items.iter().map(|item| item.needs.len()).collect();
        let ready =
            waits.iter().enumerate().filter(|(_, waits)| **waits == 0).map(|(place, _)| place).collect();
        Board { answers: items.iter().map(|_| None).collect(), waits, dependents, ready }
    }

    /// The first item that waits for nothing, which counts as begun from here on.
    pub fn begin_next(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    pub fn settle(&mut self, place: usize, answer: Answer) {
        self.answers[place] = Some(answer);
        for dependent in std::mem::take(&mut self.dependents[place]) {
            self.waits[dependent] -= 1;
            if self.waits[dependent] == 0 {
                self.ready.insert(dependent);
            }
        }
    }

    pub fn answer(&self, place: usize) -> Option<&Answer> {
        self.answers[place].as_ref()
    }
}
