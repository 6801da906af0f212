//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values; `$${` stands for `${` itself.
//!
//! What a variable or a file holds never reaches a message: only its name does.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::text::quoted;

/// Bytes that the variables of one file may add in all.
const MAX_ADDED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a file that a value is read from. A secret is some dozens of them.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What a reference to a file begins with.
const FILE: &str = "file:";

pub(super) struct Variables<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// Where relative paths start.
    directory: &'a Path,
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
    pub fn new(environment: &'a dyn Fn(&str) -> Option<String>, directory: &'a Path) -> Self {
        Variables { environment, directory, added: 0 }
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
        if let Some(path) = name.strip_prefix(FILE) {
            let content = self.file(path, default)?;
            return self.add(&content, replaced);
        }
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
        self.add(&value, replaced)
    }

    /// The text of a file, without the line break that editors end it with.
    fn file(&self, path: &str, default: Option<&str>) -> Result<Zeroizing<String>, Fault> {
        if path.trim().is_empty() || path.contains(['\0', '$', '{']) {
            return Err(Fault::new(
                format!("{} is not the name of a file", quoted(path)),
                "write `${file:secrets/token}`, without variables in it",
            ));
        }
        match (read(&self.directory.join(path)), default) {
            (Ok(text), _) => Ok(text),
            (Err(error), Some(default)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Zeroizing::new(default.to_owned()))
            }
            (Err(error), _) => Err(Fault::new(
                format!("can't read the file {}: {error}", quoted(path)),
                "relative paths start at the directory of the configuration file; a file of text, up to 64 KiB, is read",
            )),
        }
    }

    fn add(&mut self, value: &str, replaced: &mut String) -> Result<(), Fault> {
        self.added = self.added.saturating_add(value.len());
        if self.added > MAX_ADDED_BYTES {
            return Err(Fault::new(
                format!("variables add more than {} MiB to the configuration", MAX_ADDED_BYTES >> 20),
                "use files for large values",
            ));
        }
        replaced.push_str(value);
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    // Anything else may have no end, or none yet.
    if !std::fs::metadata(path)?.is_file() {
        return Err(wrong("it is no file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong("it has more than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// The files that a configuration's text takes values from, whether or not all of it can be understood; of what only
/// looks like a reference, too.
pub(super) fn files(text: &str, directory: &Path) -> Vec<PathBuf> {
    const OPENING: &str = "${file:";
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(start) = rest.find(OPENING) {
        rest = &rest[start + OPENING.len()..];
        let Some(end) = rest.find(['}', '\n']) else { break };
        let path = rest[..end].split(":-").next().unwrap_or_default();
        let path = directory.join(path);
        let path = std::path::absolute(&path).unwrap_or(path);
        if !found.contains(&path) && found.len() < MAX_WATCHED {
            found.push(path);
        }
    }
    found
}

/// Files of values that are followed.
const MAX_WATCHED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
        let mut variables = Variables::new(&environment, &directory);
        variables.replace(text).map(Cow::into_owned).map_err(|fault| fault.message)
    }

    #[test]
    fn files_are_read_without_the_line_break_at_their_end() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("one"), "s3cret\n").unwrap();
        std::fs::write(at("two"), "a\nb \r\n\n").unwrap();
        std::fs::write(at("binary"), b"\xff\xfe").unwrap();
        std::fs::write(at("long"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        let replace = |text: &str| {
            let mut variables = Variables::new(&|_| None, directory.path());
            variables.replace(text).map(Cow::into_owned).map_err(|fault| fault.message)
        };
        assert_eq!(replace("x${file:one}y").as_deref(), Ok("xs3crety"));
        assert_eq!(replace("${file:two}").as_deref(), Ok("a\nb "));
        assert_eq!(replace(&format!("${{file:{}}}", at("one").display())).as_deref(), Ok("s3cret"));
        assert_eq!(replace("${file:none:-dev}${file:one:-dev}").as_deref(), Ok("devs3cret"));
        assert_eq!(replace("$${file:one}").as_deref(), Ok("${file:one}"));
        for (text, told) in [
            ("${file:none}", "can't read the file \"none\": "),
            ("${file:.}", "can't read the file \".\": it is no file"),
            ("${file:/dev/zero}", "can't read the file \"/dev/zero\": it is no file"),
            ("${file:binary:-x}", "can't read the file \"binary\": it is not UTF-8 text"),
            ("${file:long}", "can't read the file \"long\": it has more than 64 KiB"),
            ("${file:}", "\"\" is not the name of a file"),
            ("${file:${HOME}/a}", "\"${HOME\" is not the name of a file"),
        ] {
            let fault = replace(text).unwrap_err();
            assert!(fault.starts_with(told), "{text}: {fault}");
        }
    }

    #[test]
    fn files_are_found_in_any_text() {
        let found = files(
            "a: ${file:x}\nb: [${file:/y:-z}, ${file:x}, ${X}\n${file:open\n${file:q",
            Path::new("/etc"),
        );
        assert_eq!(found, ["/etc/x", "/y", "/etc/open"].map(PathBuf::from));
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
