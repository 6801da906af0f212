//! `gatehouse check`: whether a configuration is right, and everything that is wrong with it.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::explain;

use crate::config::{self, Config, Loaded, Problems, Source};

/// Exit codes of the commands that judge something.
pub const FINE: u8 = 0;
pub const WRONG: u8 = 1;

/// How the outcome is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// One JSON object on the standard output instead of text.
    pub json: bool,
    pub colour: bool,
}

/// Loads the file, has `compile` look for what only shows when it is put together (a certificate that
/// can't be read, say), and tells all of it: problems to `err`, JSON to `out`. Returns the exit code.
///
/// # Errors
///
/// When `out` or `err` can't be written to.
pub fn run(
    path: &Path,
    style: Style,
    explain: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
    compile: impl FnOnce(&Config) -> Problems,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<u8> {
    let source = match config::read_source(path) {
        Ok(source) => source,
        Err(error) => {
            if style.json {
                writeln!(
                    out,
                    "{}",
                    json!({ "file": path.display().to_string(), "error": error.to_string() })
                )?;
            } else {
                writeln!(err, "error: {error}")?;
                for cause in std::iter::successors(std::error::Error::source(&error), |cause| cause.source())
                {
                    writeln!(err, "  because {cause}")?;
                }
            }
            return Ok(WRONG);
        }
    };
    let (config, mut problems) = match config::load(&source, environment) {
        Ok(Loaded { config, warnings }) => (Some(config), warnings),
        Err(problems) => (None, problems),
    };
    if let Some(config) = &config {
        problems.extend(compile(config));
        problems.sort();
    }
    let whole = config.as_ref().filter(|_| !problems.has_errors());
    let explained = explain.zip(whole).map(|(name, config)| (name, explain::as_json(config, name)));
    if style.json {
        let mut told = config::render_json(&problems, &source);
        if let Some((_, Some(route))) = &explained {
            told["route"] = route.clone();
        }
        writeln!(out, "{told}")?;
    } else {
        tell(&source, config.as_ref(), &problems, style, err)?;
        if let (Some(config), Some((name, Some(_)))) = (whole, &explained) {
            explain::write(config, name, out)?;
        }
    }
    if let Some((name, None)) = explained {
        writeln!(err, "error: {} has no route {name:?}", source.path.display())?;
        return Ok(WRONG);
    }
    Ok(if whole.is_none() { WRONG } else { FINE })
}

fn tell(
    source: &Source,
    config: Option<&Config>,
    problems: &Problems,
    style: Style,
    err: &mut dyn Write,
) -> std::io::Result<()> {
    if !problems.is_empty() {
        write!(err, "{}", config::render(problems, source, style.colour))?;
    }
    match config {
        Some(config) if !problems.has_errors() => {
            writeln!(err, "{} is fine: {}", source.path.display(), summary(config))
        }
        _ => Ok(()),
    }
}

/// `3 listeners, 2 services, 12 routes`
fn summary(config: &Config) -> String {
    let counted = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    [
        counted(config.listeners.len(), "listener"),
        counted(config.services.len(), "service"),
        counted(config.routes.len(), "route"),
    ]
    .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
listeners: [{ name: http, bind: 127.0.0.1:0 }]
routes:
  - { name: ping, match: { path: /ping }, respond: { text: pong } }
";

    fn check(text: &str, json: bool, compile: impl FnOnce(&Config) -> Problems) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let style = Style { json, colour: false };
        let code = run(&path, style, None, &|_| None, compile, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_fine() {
        let (code, out, err) = check(GOOD, false, |_| Problems::default());
        assert_eq!((code, out.as_str()), (FINE, ""));
        assert!(err.ends_with("gateway.yaml is fine: 1 listener, 0 services, 1 route\n"), "{err}");
    }

    #[test]
    fn problems_of_loading_and_of_compiling_are_told() {
        let (code, _, err) = check("listners: []", false, |_| Problems::default());
        assert_eq!(code, WRONG);
        assert!(err.contains("did you mean \"listeners\"?"), "{err}");
        let (code, _, err) = check(GOOD, false, |config| {
            let mut problems = Problems::default();
            problems.error(config.listeners[0].bind.span, "no such device", "plug it in");
            problems
        });
        assert_eq!(code, WRONG);
        assert!(err.contains("error: no such device") && !err.contains("is fine"), "{err}");
    }

    #[test]
    fn json_goes_to_the_standard_output() {
        let (code, out, err) = check("routes: 5", true, |_| Problems::default());
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, err.as_str()), (WRONG, ""));
        assert_eq!(told["errors"], 2);
        assert_eq!(told["problems"][0]["line"], 1);
    }

    #[test]
    fn a_missing_file_is_wrong() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let path = Path::new("/nowhere/gateway.yaml");
        let code = run(path, Style::default(), None, &|_| None, |_| Problems::default(), &mut out, &mut err);
        assert_eq!(code.unwrap(), WRONG);
        assert!(String::from_utf8(err).unwrap().starts_with("error: there is no file /nowhere/gateway.yaml"));
    }
}
