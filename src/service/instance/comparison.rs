//! What outlier detection wants of an instance: what came of its requests, and whether it is out for it.

use super::Instance;
use crate::clock::Millis;
use crate::service::ejection::{Ejection, EjectionReason, EjectionTime};
use crate::service::tally::Tallied;

impl Instance {
    /// Whether it is to get requests only where no other instance can take them.
    pub fn is_ejected(&self) -> bool {
        self.ejections.is_ejected()
    }

    /// What the present ejection is about.
    pub fn ejection(&self) -> Option<Ejection> {
        self.ejections.present()
    }

    /// How often it was ejected, by reason.
    pub fn ejections(&self) -> [(EjectionReason, u64); EjectionReason::ALL.len()] {
        self.ejections.counts()
    }

    /// Ejects it for the time that it has come to; with `until_reached` no longer than it can't be reached.
    pub fn eject(
        &self,
        reason: EjectionReason,
        why: String,
        until_reached: bool,
        now: Millis,
        time: EjectionTime,
    ) {
        self.ejections.eject(reason, why, until_reached, now, time);
    }

    /// Ends the present ejection, if there is one.
    pub fn readmit(&self, now: Millis) {
        if self.ejections.end(now) {
            self.begins(now);
        }
    }

    /// How often it came back after it could not be reached.
    pub fn returns(&self) -> u32 {
        self.ejections.returns()
    }

    /// What had been counted when it last came back.
    pub fn tallied_at_return(&self) -> Option<Tallied> {
        self.ejections.at_return()
    }

    /// From now on, what comes of requests is counted for [`Instance::tallied`], and so many failures in a row are
    /// noted. `None` ends that. `times`: how long answers take, too.
    pub fn tally(&self, run_of: Option<u32>, times: bool) {
        if times {
            self.loads.all().for_each(|load| load.tally.keep_times());
        }
        self.ejections.set_run_of(run_of);
    }

    pub fn tallied(&self) -> Tallied {
        Tallied::of(self.loads.all().map(|load| &load.tally))
    }
}
