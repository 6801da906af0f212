//! How many connections the process's file descriptors are enough for.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For all that isn't a client's connection or the one to an instance that goes with it: sockets that listen,
/// runtimes, logs, files that are read, health checks, the admin interface.
const OWN: u64 = 48;

/// Raises the limit of the process as far as it may. The soft limit of 1024 that most systems start
/// processes with is for programs that use `select`.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it isn't allowed, the lower limit is counted with.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The most client connections at a time, when each may need another to an instance. Were they let in without
/// a bound, they would take the descriptors that answering them needs.
pub fn client_connections() -> usize {
    static CONNECTIONS: OnceLock<usize> = OnceLock::new();
    *CONNECTIONS.get_or_init(|| enough_for(getrlimit(Resource::Nofile).current))
}

fn enough_for(limit: Option<u64>) -> usize {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(OWN) / 2);
    usize::try_from(left).unwrap_or(usize::MAX).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_left_is_for_clients() {
        assert_eq!(enough_for(None), usize::MAX);
        assert_eq!(enough_for(Some(1024)), 488);
        assert_eq!(enough_for(Some(64)), 8);
        assert_eq!(enough_for(Some(0)), 4);
    }
}
