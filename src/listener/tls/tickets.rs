//! What session tickets are sealed with, for as long as the process runs: a reload takes no client its tickets.
//!
//! Listeners with client certificates have none. A session that is resumed doesn't show its certificate again, and
//! one that was revoked since, or whose issuer is trusted no more, would go on for as long as the ticket does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets};

/// One for each listener, so that a session of one is none of another. They change their keys by themselves every few
/// hours.
#[derive(Default)]
pub struct Tickets(Mutex<HashMap<String, Arc<dyn ProducesTickets>>>);

impl Tickets {
    pub(super) fn resume(&self, listener: &str, config: &mut ServerConfig) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(listener).cloned().or_else(|| {
            let made = aws_lc_rs::Ticketer::new().ok()?;
            all.insert(listener.to_owned(), made.clone());
            Some(made)
        });
        if let Some(ticketer) = known {
            config.ticketer = ticketer;
        }
    }
}

/// Every connection begins with a whole handshake.
pub(super) fn never_resume(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}
