//! Header changes from the configuration: fields to remove, then fields to set.
//!
//! Names and values are parsed when a snapshot is made; applying them only moves them in.

use http::{HeaderName, HeaderValue};

use crate::config;
use crate::http::fields::Fields;
use crate::http::interned;

#[derive(Debug, Default)]
pub struct HeaderEdit {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderEdit {
    pub fn compile(config: &config::HeaderEdit) -> HeaderEdit {
        HeaderEdit {
            remove: config.remove.iter().map(interned::name).collect(),
            set: config
                .set
                .iter()
                .map(|(name, value)| (interned::name(name), interned::value(value)))
                .collect(),
        }
    }

    /// Removes every value of the fields to remove, and replaces every value of the fields to set. A
    /// field written twice under `set` is sent twice; one that is in both lists is set.
    pub fn apply(&self, headers: &mut Fields) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (position, (name, value)) in self.set.iter().enumerate() {
            let written_before = self.set[..position].iter().any(|(earlier, _)| earlier == name);
            if written_before {
                headers.append(name.clone(), value.clone());
            } else {
                headers.insert(name.clone(), value.clone());
            }
        }
    }

    /// The fields that it changes.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.set.iter().map(|(name, _)| name))
    }

    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn all_values_are_removed_or_replaced() {
        let edit = HeaderEdit::compile(&config::HeaderEdit {
            set: vec![
                (name("x-from"), value("gateway")),
                (name("x-both"), value("set")),
                (name("link"), value("<a>")),
                (name("link"), value("<b>")),
            ],
            remove: vec![name("server"), name("x-both"), name("x-absent")],
        });
        let mut headers = Fields::new();
        for (field, text) in [
            ("server", "one"),
            ("server", "two"),
            ("x-from", "client"),
            ("x-from", "again"),
            ("accept", "*/*"),
        ] {
            headers.append(name(field), value(text));
        }
        edit.apply(&mut headers);
        let headers = headers.to_map();

        assert!(!headers.contains_key("server"));
        assert_eq!(headers.get_all("x-from").iter().collect::<Vec<_>>(), ["gateway"]);
        assert_eq!(headers["x-both"], "set");
        assert_eq!(headers.get_all("link").iter().collect::<Vec<_>>(), ["<a>", "<b>"]);
        assert_eq!(headers["accept"], "*/*");
    }

    #[test]
    fn nothing_to_do_is_known_beforehand() {
        assert!(HeaderEdit::compile(&config::HeaderEdit::default()).is_empty());
    }
}
