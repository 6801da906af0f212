//! `${NAME}` and `${NAME:-default}` inside values; `$${` stands for `${` itself.
//!
//! What a variable holds never reaches a message: only its name does.

use std::borrow::Cow;

use super::text::quoted;

/// Bytes that the variables of one file may add in all.
const MAX_ADDED_BYTES: usize = 16 * 1024 * 1024;

pub(super) struct Variables<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    added: usize,
}

pub(super) struct Fault {
    pub message: String,
    pub remedy: String,
}

impl Fault {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Fault { message: message.into(), remedy: remedy.into() }
    }
}

impl<'a> Variables<'a> {
    pub fn new(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Variables { environment, added: 0 }
    }

    pub fn replace<'t>(&mut self, text: &'t str) -> Result<Cow<'t, str>, Fault> {
        if !text.contains("${") {
            return Ok(Cow::Borrowed(text));
        }
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            if rest[..dollar].ends_with('$') {
                replaced.push_str(&rest[..dollar - 1]);
                replaced.push_str("${");
                rest = &rest[dollar + 2..];
                continue;
            }
            replaced.push_str(&rest[..dollar]);
            let inside = &rest[dollar + 2..];
            let end = inside.find('}').ok_or_else(|| {
                Fault::new("`${` is never closed", "close it with `}`, or write `$${` for a plain `${`")
            })?;
            self.value(&inside[..end], &mut replaced)?;
            rest = &inside[end + 1..];
        }
        replaced.push_str(rest);
        Ok(Cow::Owned(replaced))
    }

    fn value(&mut self, reference: &str, replaced: &mut String) -> Result<(), Fault> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !well_formed {
            return Err(Fault::new(
                format!("{} is not the name of a variable", quoted(name)),
                "write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`",
            ));
        }
        // An empty variable counts as unset for a default, as it does in a shell.
        let value = match ((self.environment)(name), default) {
            (Some(value), None) => value,
            (Some(value), Some(_)) if !value.is_empty() => value,
            (_, Some(default)) => default.to_owned(),
            (None, None) => {
                return Err(Fault::new(
                    format!("the environment variable {name} is not set"),
                    format!("set it, or give it a default: `${{{name}:-…}}`"),
                ));
            }
        };
        self.added = self.added.saturating_add(value.len());
        if self.added > MAX_ADDED_BYTES {
            return Err(Fault::new(
                format!("variables add more than {} MiB to the configuration", MAX_ADDED_BYTES >> 20),
                "use files for large values",
            ));
        }
        replaced.push_str(&value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Variables::new(&environment).replace(text).map(Cow::into_owned).map_err(|fault| fault.message)
    }

    #[test]
    fn replaces_defaults_and_escapes() {
        assert_eq!(replace("plain").as_deref(), Ok("plain"));
        assert_eq!(replace("http://${HOST}/${HOST}").as_deref(), Ok("http://example.com/example.com"));
        assert_eq!(replace("${NONE:-a:-b}").as_deref(), Ok("a:-b"));
        assert_eq!(replace("${NONE:-}").as_deref(), Ok(""));
        assert_eq!(replace("${EMPTY:-x}").as_deref(), Ok("x"));
        assert_eq!(replace("${EMPTY}").as_deref(), Ok(""));
        assert_eq!(replace("a$${HOST}b").as_deref(), Ok("a${HOST}b"));
        assert_eq!(replace("costs $5 {x}").as_deref(), Ok("costs $5 {x}"));
    }

    #[test]
    fn refuses_what_it_cannot_replace() {
        assert_eq!(replace("${NONE}").unwrap_err(), "the environment variable NONE is not set");
        assert_eq!(replace("${HOST").unwrap_err(), "`${` is never closed");
        assert_eq!(replace("${a-b}").unwrap_err(), "\"a-b\" is not the name of a variable");
    }
}
