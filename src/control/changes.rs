//! What a reload changed, by name, for the log and the admin API.

use crate::config::Config;

/// One line for each named thing that was added, removed or changed; empty when nothing was.
pub fn between(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    if old.workers != new.workers {
        changes.push("workers changed: takes effect at the next start".to_owned());
    }
    compare("listener", &old.listeners, &new.listeners, |l| &l.name.value, &mut changes);
    compare("service", &old.services, &new.services, |s| &s.name.value, &mut changes);
    compare("authenticator", &old.authenticators, &new.authenticators, |a| &a.name.value, &mut changes);
    compare(
        "authenticator",
        &old.certificate_authenticators,
        &new.certificate_authenticators,
        |a| &a.name.value,
        &mut changes,
    );
    compare("rate limit", &old.rate_limits, &new.rate_limits, |r| &r.name.value, &mut changes);
    compare("route", &old.routes, &new.routes, |r| &r.name.value, &mut changes);
    let blocks = [
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("admin", old.admin != new.admin),
        ("registry", old.registry != new.registry),
        ("defaults", old.defaults != new.defaults),
        ("access_log", old.access_log != new.access_log),
    ];
    changes.extend(blocks.iter().filter(|(_, changed)| *changed).map(|(name, _)| format!("{name} changed")));
    changes
}

fn compare<T: PartialEq>(
    kind: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
    changes: &mut Vec<String>,
) {
    let before: std::collections::HashMap<&String, &T> = old.iter().map(|one| (name(one), one)).collect();
    let mut kept = 0;
    for one in new {
        match before.get(name(one)) {
            None => changes.push(format!("{kind} {} added", name(one))),
            Some(was) => {
                kept += 1;
                if *was != one {
                    changes.push(format!("{kind} {} changed", name(one)));
                }
            }
        }
    }
    if kept == before.len() {
        return;
    }
    let after: std::collections::HashSet<&String> = new.iter().map(&name).collect();
    for gone in old.iter().filter(|one| !after.contains(name(one))) {
        changes.push(format!("{kind} {} removed", name(gone)));
    }
}
