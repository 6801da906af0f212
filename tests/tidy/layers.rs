//! Who may import whom: the invariants of ARCHITECTURE.md.

use std::collections::BTreeSet;

use regex::Regex;

use super::source::{self, Exceptions, SourceFile, except, none};

/// What a module never names, neither in an import nor in a path.
const NEVER: [(&str, &[&str]); 24] = [
    // The request path knows nothing of what stands beside it (invariant 1).
    ("action", BESIDE),
    ("exchange", BESIDE),
    ("identity", BESIDE),
    ("listener", BESIDE),
    ("pipeline", BESIDE),
    ("policy", BESIDE),
    ("refusal", BESIDE),
    ("request", BESIDE),
    ("route", BESIDE),
    ("service", BESIDE),
    ("snapshot", BESIDE),
    ("worker", BESIDE),
    // Routing and services are tools of the pipeline, and know nothing of it.
    ("route", PIPELINE),
    ("service", PIPELINE),
    // What everybody uses uses nobody.
    ("http", BESIDE),
    ("http", PIPELINE),
    ("http", &["service", "route", "telemetry", "worker", "listener"]),
    ("telemetry", BESIDE),
    ("telemetry", PIPELINE),
    ("telemetry", &["service", "route", "worker", "listener"]),
    // The control side publishes into what requests read; it serves no requests and starts nothing.
    ("control", &["admin", "cli", "gateway", "listener", "worker", "pipeline", "action"]),
    (
        "discovery",
        &["admin", "cli", "gateway", "control", "listener", "worker", "pipeline", "action", "policy"],
    ),
    // The admin interface knows the gateway through its `ControlSurface` only.
    (
        "admin",
        &["cli", "gateway", "control", "discovery", "listener", "worker", "pipeline", "action", "snapshot"],
    ),
    ("gateway", &["cli"]),
];
const BESIDE: &[&str] = &["control", "discovery", "admin", "gateway", "cli"];
const PIPELINE: &[&str] = &["pipeline", "action", "policy", "exchange", "request", "refusal"];

/// Modules that name no other module of ours at all.
const ALONE: [&str; 5] = ["buffers", "config", "clock", "per_worker", "reason"];

/// Files of the request path that name types of the configuration, which they compile into their own form.
/// Nothing of the configuration is read while a request is served (invariant 2).
const COMPILES: [&str; 28] = [
    "action/aggregate/compile.rs",
    "action/batch/compile.rs",
    "action/respond.rs",
    "listener/mod.rs",
    "listener/tls.rs",
    "listener/tls/certificate.rs",
    "listener/tls/clients.rs",
    "policy/authenticate/authenticator.rs",
    "policy/authenticate/certificate.rs",
    "policy/authenticate/compile.rs",
    "policy/authenticate/mod.rs",
    "policy/authenticate/token_source.rs",
    "policy/authorize.rs",
    "policy/cors.rs",
    "policy/headers.rs",
    "policy/ip_filter.rs",
    "policy/maintenance.rs",
    "policy/method_override.rs",
    "policy/rate_limit/key.rs",
    "policy/rate_limit/mod.rs",
    "policy/security_headers.rs",
    "route/compile.rs",
    "route/conditions.rs",
    "route/mod.rs",
    "route/pattern.rs",
    "service/mod.rs",
    "service/settings.rs",
    "service/tls/compile.rs",
];
const REQUEST_PATH: [&str; 10] = [
    "action", "exchange", "identity", "listener", "pipeline", "policy", "refusal", "request", "route",
    "service",
];

/// Statuses of 4xx and 5xx on the request path are chosen by `reason.rs` alone (invariant 5).
const STATUSES: Exceptions<'_> =
    &[("action/aggregate/part.rs", "reads the status that a service gave a part")];

#[test]
fn modules_never_name_what_they_must_not_know() {
    let mut broken = Vec::new();
    for file in source::sources() {
        let own = own(&file);
        for (line, path) in paths(&file) {
            let Some(named) = path.first().filter(|named| **named != own) else { continue };
            let forbidden = NEVER.iter().any(|(module, never)| *module == own && never.contains(&&**named));
            if forbidden || ALONE.contains(&&*own) {
                broken.push(format!("src/{}:{line}: `{own}` names `{named}`", file.name));
            }
        }
    }
    none(
        &broken,
        "See the layers in ARCHITECTURE.md: move the type to the side that owns it, or pass it in.",
    );
}

/// Invariant 2, its first half.
#[test]
fn a_policy_names_no_other_policy() {
    let mut broken = Vec::new();
    for file in source::sources() {
        let module = file.module();
        let [first, own, ..] = &module[..] else { continue };
        if first != "policy" {
            continue;
        }
        for (line, path) in paths(&file) {
            if let [first, named, ..] = &path[..]
                && first == "policy"
                && named != own
                && named.starts_with(|c: char| c.is_ascii_lowercase())
            {
                broken.push(format!("src/{}:{line}: `{own}` names `{named}`", file.name));
            }
        }
    }
    none(&broken, "Only policy/mod.rs knows more than one policy.");
}

/// Invariant 2, its second half.
#[test]
fn configuration_types_are_compiled_not_served_from() {
    let named =
        |file: &SourceFile| paths(file).iter().any(|(_, path)| path.first().is_some_and(|p| p == "config"));
    let found =
        source::sources().into_iter().filter(|file| REQUEST_PATH.contains(&&*own(file)) && named(file));
    let found: Vec<_> = found
        .map(|file| (file.name.clone(), format!("src/{} names types of the configuration", file.name)))
        .collect();
    let exceptions: Vec<_> = COMPILES.iter().map(|name| (*name, "compiles them")).collect();
    none(
        &except(found, &exceptions),
        "Compile what is needed into a form of its own, and list the file here.",
    );
}

/// Invariant 5.
#[test]
fn only_reasons_choose_the_status_of_a_reply_of_our_own() {
    let status = Regex::new(r"StatusCode::([A-Z_]+)\b|StatusCode::from_u16\(").expect("a good pattern");
    let mut found = Vec::new();
    for file in source::sources().iter().filter(|file| REQUEST_PATH.contains(&&*own(file))) {
        let errors = file.statements().filter(|(_, line)| {
            status.captures_iter(line).any(|c| c.get(1).is_none_or(|name| is_error(name.as_str())))
        });
        found.extend(
            errors.map(|(line, text)| {
                (file.name.clone(), format!("src/{}:{line}: {}", file.name, text.trim()))
            }),
        );
    }
    none(&except(found, STATUSES), "Add a reason to reason.rs, which brings its status.");
}

fn is_error(name: &str) -> bool {
    (400..600).filter_map(|code| http::StatusCode::from_u16(code).ok()).any(|status| {
        status.canonical_reason().is_some_and(|reason| {
            let constant = reason.to_ascii_uppercase().replace([' ', '-'], "_").replace('\'', "");
            constant == name
        })
    })
}

/// Everything has a bound, and time on the request path is the runtime's, so that tests can pause it.
#[test]
fn queues_have_bounds_and_time_can_be_paused() {
    let banned = [
        ("unbounded_channel", "a queue without a bound"),
        ("std::sync::mpsc::channel", "a queue without a bound"),
        ("std::time::Instant", "a clock that tests can't pause"),
        ("std::thread::sleep", "a wait that holds up everything else on the thread"),
    ];
    const MAY: Exceptions<'_> = &[
        ("clock.rs: std::time::Instant", "the beginning of the process lies before any runtime"),
        (
            "telemetry/writer.rs: std::thread::sleep",
            "the writer has a thread to itself, to wait for its output",
        ),
        (
            "worker/thread.rs: unbounded_channel",
            "commands come from reloads, a few at a time, and are taken at once",
        ),
    ];
    let mut found = Vec::new();
    for file in source::sources() {
        for (line, text) in file.statements() {
            for (name, why) in banned.iter().filter(|(name, _)| text.contains(name)) {
                let message = format!("src/{}:{line}: {name} is {why}", file.name);
                found.push((format!("{}: {name}", file.name), message));
            }
        }
    }
    none(&except(found, MAY), "Use a bounded channel, tokio's clock and tokio's timers.");
}

/// The module of the crate that a file belongs to: its first name.
fn own(file: &SourceFile) -> String {
    file.module().first().cloned().unwrap_or_else(|| "the crate itself".to_owned())
}

/// Every path from `crate` or `super` in the code of a file, made absolute, with its line.
fn paths(file: &SourceFile) -> BTreeSet<(usize, Vec<String>)> {
    let path =
        Regex::new(r"\b(?:pub\(in )?(crate|super(?:::super)*)((?:::[A-Za-z_][A-Za-z0-9_]*)*)(?:::\{(.*))?")
            .expect("a good pattern");
    let name = Regex::new(r"^[A-Za-z_][A-Za-z0-9_]*").expect("a good pattern");
    let mut found = BTreeSet::new();
    for (line, text) in file.statements().filter(|(_, text)| !text.contains("pub(in crate")) {
        for captures in path.captures_iter(text) {
            let mut absolute = if &captures[1] == "crate" {
                Vec::new()
            } else {
                let mut module = file.module();
                module.truncate(module.len().saturating_sub(captures[1].matches("super").count()));
                module
            };
            absolute.extend(captures[2].split("::").filter(|part| !part.is_empty()).map(str::to_owned));
            let Some(group) = captures.get(3) else {
                found.insert((line, absolute));
                continue;
            };
            for member in group.as_str().split(',').filter_map(|member| name.find(member.trim_start())) {
                let mut full = absolute.clone();
                full.push(member.as_str().to_owned());
                found.insert((line, full));
            }
        }
    }
    found
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = "use crate::http::path;\nuse super::rate_limit::{Key, store};\n// use crate::no\nlet a = super::super::worker::b();\n";
    let file = SourceFile { name: "policy/cors.rs".into(), text: text.into(), is_test: false };
    let read: Vec<String> =
        paths(&file).into_iter().map(|(line, path)| format!("{line} {}", path.join("::"))).collect();
    assert_eq!(
        read,
        ["1 http::path", "2 policy::rate_limit::Key", "2 policy::rate_limit::store", "4 worker::b"]
    );
    assert!(
        is_error("NOT_FOUND")
            && is_error("IM_A_TEAPOT")
            && !is_error("OK")
            && !is_error("SWITCHING_PROTOCOLS")
    );
}
