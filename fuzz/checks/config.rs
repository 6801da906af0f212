//! Any text as a configuration: it loads, or it is refused with a reason that can be shown.

use gatehouse::config::{self, Source};

pub fn config(input: &[u8]) {
    let Some(text) = super::text(input) else { return };
    let source = Source { path: "gateway.yaml".into(), text: text.into() };
    // Names of even length are set, so that both outcomes of a variable are met.
    let environment = |name: &str| name.len().is_multiple_of(2).then(|| "value".to_owned());
    let problems = match config::load(&source, &environment) {
        Ok(loaded) => {
            assert!(!loaded.warnings.has_errors());
            loaded.warnings
        }
        Err(problems) => {
            assert!(problems.has_errors(), "refused without a reason");
            problems
        }
    };
    config::render(&problems, &source, false);
    config::render_json(&problems, &source);
}
