//! Which instances a request passes over as long as there are others.

use super::Picker;
use crate::service::failing::Failed;
use crate::service::instance::Instance;
use crate::service::silence::Doubt;

impl Picker<'_> {
    /// Whether a client may stay with this instance, which failures alone don't end.
    pub(super) fn may_stay(&self, index: usize) -> bool {
        let member = self.set.member(index);
        !self.was_tried(member) && self.is_usable(&member.instance) && !self.doubts(&member.instance)
    }

    pub(super) fn passes_over(&self, index: usize) -> bool {
        let instance = &self.set.member(index).instance;
        self.doubts(instance) || self.avoids(instance)
    }

    /// Whether the request would better go elsewhere for what the instance's last answers were. One is let through at times.
    pub(super) fn avoids(&self, instance: &Instance) -> bool {
        let Some((failed, is_unseen)) = self.is_wary_of(instance) else { return false };
        let is_avoided = !self.is_usable(instance) || instance.failing.holds(failed, is_unseen, self.now);
        self.has_avoided.set(self.has_avoided.get() || is_avoided);
        is_avoided
    }

    pub(super) fn is_wary_of(&self, instance: &Instance) -> Option<(Failed, bool)> {
        let failed = instance.failing.last()?;
        self.settings.is_wary_of(failed, self.once).map(|is_unseen| (failed, is_unseen))
    }

    /// Whether the instance can't be reached or is silent: it gets requests only where there is no other. One of those that
    /// wait for a silent one to answer is let through at times.
    pub(super) fn doubts(&self, instance: &Instance) -> bool {
        match instance.doubt() {
            None => false,
            Some(Doubt::Unreachable) => true,
            Some(Doubt::Silent) => !self.is_usable(instance) || instance.silence.holds(self.now),
        }
    }
}
