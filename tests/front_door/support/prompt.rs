//! How soon requests follow a change, on machines that have other things to do.

use std::time::{Duration, Instant};

/// It never came.
const LONGEST: Duration = Duration::from_secs(20);
/// What stands between a change and a request that follows it, in looks of whoever waits for it.
const LOOKS: u32 = 20;

/// What changes took until they were seen, and what looking took when there was nothing to see any more.
#[derive(Default)]
pub struct Promptness {
    took: Vec<Duration>,
    looks: Vec<Duration>,
}

impl Promptness {
    /// A change has just been made: looks again and again until it is there.
    pub async fn until(&mut self, is_there: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !is_there().await {
            assert!(began.elapsed() < LONGEST, "it never came");
        }
        self.took.push(began.elapsed());
        for _ in 0..3 {
            let began = Instant::now();
            is_there().await;
            self.looks.push(began.elapsed());
        }
    }

    /// Half of them at least took less than this, beyond what this machine makes of so short a time at present.
    pub fn assert_within(mut self, bound: Duration) {
        self.took.sort();
        self.looks.sort();
        let (took, look) = (self.took[self.took.len() / 2], self.looks[self.looks.len() / 2]);
        assert!(took < bound + look * LOOKS, "{:?}, where a look took {look:?}", self.took);
    }
}
