//! How TLS with an instance goes, for those who look at it.

use std::sync::Arc;

use super::Instance;
use crate::service::tls::TlsFailure;

impl Instance {
    /// Why TLS fails with it, if it does.
    pub fn tls_failure(&self) -> Option<Arc<TlsFailure>> {
        self.tls_failure.load_full()
    }

    pub fn set_tls_failure(&self, failure: &TlsFailure) {
        let is_known = self.tls_failure.load().as_deref().is_some_and(|known| known == failure);
        if !is_known {
            self.tls_failure.store(Some(Arc::new(failure.clone())));
        }
    }

    /// It has answered on a connection that was new, or TLS is not what it fails at.
    pub fn agreed_on_tls(&self) {
        if self.tls_failure.load().is_some() {
            self.tls_failure.store(None);
        }
    }
}
