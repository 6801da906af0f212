//! Response statuses counted exactly, in a small table: every status that IANA lists or that is in
//! wide use has a slot of its own, any other is counted with its class.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::cells::Count;

/// Slots of statuses below 400, which nearly every route meets. A number below 6 is a class: 2 is
/// "any other 2xx".
const CALM: [u16; 26] = [
    1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304,
    305, 306, 307, 308,
];
/// Slots of the rest; 0 is for what is no status.
const ERRORS: [u16; 49] = [
    0, 4, 5, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418,
    419, 420, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431, 451, 499, 500, 501, 502, 503, 504, 505,
    506, 507, 508, 509, 510, 511,
];

/// One worker's counts.
#[derive(Debug, Default)]
pub(super) struct StatusCounts {
    calm: [Count; CALM.len()],
    errors: OnceLock<Box<ErrorCounts>>,
}

#[derive(Debug)]
struct ErrorCounts([Count; ERRORS.len()]);

impl Default for ErrorCounts {
    fn default() -> Self {
        ErrorCounts(std::array::from_fn(|_| Count::default()))
    }
}

impl StatusCounts {
    pub(super) fn record(&self, status: u16) {
        match SLOTS.get(usize::from(status)) {
            Some(&slot) if status < 400 => self.calm[usize::from(slot)].add(1),
            Some(&slot) => self.errors.get_or_init(Box::default).0[usize::from(slot)].add(1),
            None => self.errors.get_or_init(Box::default).0[0].add(1),
        }
    }
}

/// The sums over all workers, of those that occurred, with their labels.
pub(super) fn totals<'a>(
    workers: impl Iterator<Item = &'a StatusCounts>,
) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
    let mut calm = [0; CALM.len()];
    let mut errors = [0; ERRORS.len()];
    for worker in workers {
        add(&mut calm, &worker.calm);
        if let Some(counts) = worker.errors.get() {
            add(&mut errors, &counts.0);
        }
    }
    let all = CALM.into_iter().zip(calm).chain(ERRORS.into_iter().zip(errors));
    all.filter(|&(_, count)| count > 0).map(|(status, count)| (label(status), count))
}

fn add(totals: &mut [u64], counts: &[Count]) {
    totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count.value());
}

fn label(status: u16) -> Cow<'static, str> {
    match status {
        0 => "other".into(),
        1 => "1xx".into(),
        2 => "2xx".into(),
        3 => "3xx".into(),
        4 => "4xx".into(),
        5 => "5xx".into(),
        exact => exact.to_string().into(),
    }
}

/// From a status to its slot: in `CALM` below 400, in `ERRORS` from there on.
const SLOTS: [u8; 600] = {
    let mut slots = [0; 600];
    let mut status = 0;
    while status < slots.len() {
        let class = (status / 100) as u16;
        slots[status] = match class {
            // 0 to 99 are no statuses: the nearest class is as good as any.
            0 => find(&CALM, 1),
            1..=3 => find_or_class(&CALM, status as u16, class),
            _ => find_or_class(&ERRORS, status as u16, class),
        };
        status += 1;
    }
    slots
};

const fn find_or_class(table: &[u16], status: u16, class: u16) -> u8 {
    let slot = find(table, status);
    if slot as usize == table.len() { find(table, class) } else { slot }
}

/// The length of the table when it is not there.
const fn find(table: &[u16], wanted: u16) -> u8 {
    let mut slot = 0;
    while slot < table.len() && table[slot] != wanted {
        slot += 1;
    }
    slot as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_once_and_listed_ones_exactly() {
        let (one, two) = (StatusCounts::default(), StatusCounts::default());
        for status in 0..=1000 {
            if status % 2 == 0 { one.record(status) } else { two.record(status) }
        }
        let totals: Vec<_> = totals([&one, &two].into_iter()).collect();
        assert_eq!(totals.iter().map(|(_, count)| count).sum::<u64>(), 1001);
        for exact in ["200", "204", "304", "404", "429", "451", "499", "502", "504"] {
            assert_eq!(totals.iter().find(|(label, _)| label == exact), Some(&(exact.into(), 1)));
        }
        let other = totals.iter().find(|(label, _)| label == "other").unwrap();
        assert_eq!(other.1, 401, "600 to 1000");
        assert!(totals.contains(&("2xx".into(), 90)));
    }

    #[test]
    fn errors_cost_nothing_until_there_is_one() {
        let counts = StatusCounts::default();
        counts.record(200);
        assert!(counts.errors.get().is_none());
        counts.record(503);
        assert!(counts.errors.get().is_some());
    }
}
