//! Response statuses counted exactly, in a small table: every status that IANA lists or that is in
//! wide use has a slot of its own, any other is counted with its class.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::cells::Count;

/// The statuses with a slot. A number below 6 is a class: 2 is "any other 2xx"; 0 is for what is no status.
const LISTED: [u16; 75] = [
    0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302,
    303, 304, 305, 306, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414,
    415, 416, 417, 418, 419, 420, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431, 451, 499, 500, 501,
    502, 503, 504, 505, 506, 507, 508, 509, 510, 511,
];

/// One worker's counts.
#[derive(Debug, Default)]
pub(super) struct StatusCounts {
    /// 200, which many routes meet nothing but.
    ok: Count,
    others: OnceLock<Box<Listed>>,
}

#[derive(Debug)]
struct Listed([Count; LISTED.len()]);

impl Default for Listed {
    fn default() -> Self {
        Listed(std::array::from_fn(|_| Count::default()))
    }
}

impl StatusCounts {
    pub(super) fn record(&self, status: u16) {
        if status == 200 {
            self.ok.add(1);
        } else {
            let slot = SLOTS.get(usize::from(status)).copied().unwrap_or_default();
            self.others.get_or_init(Box::default).0[usize::from(slot)].add(1);
        }
    }
}

/// The sums over all workers, of those that occurred, with their labels.
pub(super) fn totals<'a>(
    workers: impl Iterator<Item = &'a StatusCounts>,
) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
    let mut totals = [0; LISTED.len()];
    for worker in workers {
        totals[usize::from(SLOTS[200])] += worker.ok.value();
        if let Some(counts) = worker.others.get() {
            totals.iter_mut().zip(&counts.0).for_each(|(total, count)| *total += count.value());
        }
    }
    let all = LISTED.into_iter().zip(totals).filter(|&(_, count)| count > 0);
    all.map(|(status, count)| (label(status), count))
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

/// From a status to its slot.
const SLOTS: [u8; 600] = {
    let mut slots = [0; 600];
    let mut status = 0;
    while status < slots.len() {
        // 0 to 99 are no statuses: the nearest class is as good as any.
        let class = if status < 100 { 1 } else { status / 100 };
        let own = if status < 100 { LISTED.len() } else { find(status) };
        slots[status] = if own == LISTED.len() { find(class) } else { own } as u8;
        status += 1;
    }
    slots
};

/// The length of the table when it is not there.
const fn find(wanted: usize) -> usize {
    let mut slot = 0;
    while slot < LISTED.len() && LISTED[slot] as usize != wanted {
        slot += 1;
    }
    slot
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
    fn other_statuses_cost_nothing_until_there_is_one() {
        let counts = StatusCounts::default();
        counts.record(200);
        assert!(counts.others.get().is_none());
        counts.record(503);
        assert!(counts.others.get().is_some());
    }
}
