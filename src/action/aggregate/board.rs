//! How far the parts of one request are: which have begun, what has come of those that have ended, and who may begin.

use std::time::Duration;

use bytes::Bytes;

use super::Part;
use super::part::{Fallback, Performed, Told};

pub struct Board {
    places: Vec<Place>,
}

#[derive(Default)]
struct Place {
    begun: bool,
    /// A part has failed whose fallback this one is.
    wanted: bool,
    outcome: Option<Outcome>,
    /// What stands in the document, and what others take values from.
    value: Option<Bytes>,
}

pub struct Outcome {
    /// Why it failed, or the first of its elements did.
    pub error: Option<Told>,
    /// The elements that failed, of a part that has not failed as a whole.
    pub items: Vec<usize>,
    /// How old the last good answer is that stands in.
    pub age_s: Option<u64>,
    pub took: Duration,
}

impl Board {
    pub fn new(parts: usize) -> Self {
        Board { places: (0..parts).map(|_| Place::default()).collect() }
    }

    /// A part that can begin now, which counts as begun from here on.
    pub fn begin_next(&mut self, parts: &[Part]) -> Option<usize> {
        let place = (0..parts.len()).find(|place| {
            let at = &self.places[*place];
            let is_asked = at.wanted || !parts[*place].is_spare;
            !at.begun && is_asked && parts[*place].needs.iter().all(|need| self.places[*need].value.is_some())
        })?;
        self.places[place].begun = true;
        Some(place)
    }

    /// The part has ended.
    pub fn settle(&mut self, place: usize, performed: Performed, took: Duration, parts: &[Part]) {
        let age_s = performed.age_s;
        let (items_error, items) = performed.failed.unzip();
        let (value, error) = match performed.result {
            Ok(value) => (Some(value), items_error),
            Err(error) => (None, Some(error.told())),
        };
        let failed = value.is_none();
        self.places[place].outcome = Some(Outcome { error, items: items.unwrap_or_default(), age_s, took });
        self.places[place].value = value;
        if failed {
            match &parts[place].fallback {
                Fallback::Value(value) => self.places[place].value = Some(value.clone()),
                Fallback::Part(other) => self.places[*other].wanted = true,
            }
        }
        self.pass_on(parts);
    }

    /// Gives the values of parts to those that they stand in for. There is no circle among these, so that it ends.
    fn pass_on(&mut self, parts: &[Part]) {
        loop {
            let next = (0..parts.len()).find_map(|place| {
                let Fallback::Part(other) = parts[place].fallback else { return None };
                let waits = self.places[place].value.is_none() && self.places[place].outcome.is_some();
                self.places[other].value.clone().filter(|_| waits).map(|value| (place, value))
            });
            let Some((place, value)) = next else { return };
            self.places[place].value = Some(value);
        }
    }

    /// The value of a part that has ended, or what stands in for it.
    pub fn value(&self, place: usize) -> Option<&[u8]> {
        self.places[place].value.as_deref()
    }

    /// Nothing is known of a part that was not asked.
    pub fn outcome(&self, place: usize) -> Option<&Outcome> {
        self.places[place].outcome.as_ref()
    }
}
