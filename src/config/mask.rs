//! Which parts of a configuration text must not be shown.
//!
//! Works on the raw text, because it must also hold for a text that isn't YAML: wherever a key that
//! sounds like a secret is followed by a colon, its value is covered, on as many lines as it may go
//! on. It rather covers too much than too little.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use regex::Regex;

/// What stands in for a secret.
pub(super) const COVER: &str = "***";

/// Whether a key (or header) of that name holds a secret, by its sound; slips of the pen included.
pub(super) fn is_secret(key: &str) -> bool {
    const SOUNDS: [&str; 9] = [
        "secret",
        "token",
        "password",
        "passwd",
        "passphrase",
        "credential",
        "apikey",
        "authorization",
        "cookie",
    ];
    // These name where a token is, or whether credentials are allowed.
    const PLAIN: [&str; 3] = ["token_from", "cookie", "credentials"];
    let key = key.to_ascii_lowercase();
    if PLAIN.contains(&key.as_str()) || key.len() > 128 {
        return false;
    }
    let letters: String = key.chars().filter(|c| c.is_alphanumeric()).collect();
    let slip = |word: &str, most: usize| strsim::damerau_levenshtein(&letters, word) <= most;
    SOUNDS.iter().any(|sound| letters.contains(sound))
        || slip("secret", 2)
        || slip("token", 1)
        || slip("password", 2)
}

/// Goes through the lines of a text and says what to cover in each.
#[derive(Default)]
pub(super) struct Mask {
    /// The value of a secret goes on: on lines indented deeper than this …
    block: Option<usize>,
    /// … or until this quote.
    quote: Option<char>,
}

impl Mask {
    /// Byte ranges of `line` to cover, in order. Must be called for every line, from the first.
    pub fn next(&mut self, line: &str) -> Vec<Range<usize>> {
        let mut covered = Vec::new();
        let mut start = 0;
        if let Some(quote) = self.quote {
            let end = closing(line, quote).map(|end| value_end(line, end, true));
            covered.push(0..end.unwrap_or(line.len()));
            match end {
                None => return covered,
                Some(end) => (self.quote, start) = (None, end),
            }
        } else if let Some(indent) = self.block {
            let blank = line.trim().is_empty();
            if blank || indent_of(line) > indent {
                covered.push(0..line.len());
                return covered;
            }
            self.block = None;
        }
        self.keys(line, start, &mut covered);
        for userinfo in userinfo().captures_iter(line).filter_map(|captures| captures.get(1)) {
            if !covered.iter().any(|range| range.start < userinfo.end() && userinfo.start() < range.end) {
                covered.push(userinfo.range());
            }
        }
        covered.sort_by_key(|range| range.start);
        covered
    }

    fn keys(&mut self, line: &str, mut start: usize, covered: &mut Vec<Range<usize>>) {
        while let Some(captures) = key().captures_at(line, start) {
            let (Some(whole), Some(name)) = (captures.get(0), captures.get(1)) else { return };
            start = whole.end();
            // The host of a URL with a port only looks like a key.
            if !is_secret(name.as_str()) || line[..name.start()].ends_with("//") {
                continue;
            }
            let value = start + line[start..].len() - line[start..].trim_start().len();
            let bracketed = in_brackets(&line[..whole.start()]);
            let quoted = line[value..].chars().next().filter(|c| matches!(c, '"' | '\''));
            let end = match quoted.map(|quote| (quote, closing(&line[value + 1..], quote))) {
                Some((quote, None)) => {
                    self.quote = Some(quote);
                    line.len()
                }
                Some((_, Some(end))) => value_end(line, value + 1 + end, bracketed),
                None => {
                    let end = value_end(line, value, bracketed);
                    if !bracketed {
                        let item = line[..name.start()].trim_end_matches(['"', '\'']);
                        self.block = Some(item.chars().count());
                    } else if end == line.trim_end().len() {
                        self.block = Some(indent_of(line));
                    }
                    end
                }
            };
            if value < end {
                covered.push(value..end);
            }
            start = end;
        }
    }
}

/// Where a value ends at the latest that has come as far as `from`: with the line, or between
/// brackets with what separates values there.
fn value_end(line: &str, from: usize, bracketed: bool) -> usize {
    let mut depth = 0usize;
    let stop = |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' if depth > 0 => depth -= 1,
            ',' | ']' | '}' => return depth == 0,
            _ => {}
        }
        false
    };
    let end = if bracketed { line[from..].find(stop) } else { None };
    let end = end.map_or(line.len(), |end| from + end);
    from + line[from..end].trim_end().len()
}

/// A key and its colon.
fn key() -> &'static Regex {
    static KEY: OnceLock<Regex> = OnceLock::new();
    KEY.get_or_init(|| {
        Regex::new(r#"["']?([A-Za-z0-9_.-]+)["']?[ \t]*:"#).expect("a constant expression compiles")
    })
}

/// The text with the user and password of its URLs covered.
pub(super) fn without_userinfo(text: &str) -> Cow<'_, str> {
    userinfo().replace_all(text, format!("://{COVER}@"))
}

/// User and password of a URL.
fn userinfo() -> &'static Regex {
    static USERINFO: OnceLock<Regex> = OnceLock::new();
    USERINFO.get_or_init(|| Regex::new(r"://([^/\s@]*)@").expect("a constant expression compiles"))
}

/// Just behind the closing quote.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices();
    while let Some((offset, c)) = characters.next() {
        if c == '\\' && quote == '"' {
            characters.next();
        } else if c == quote {
            return Some(offset + c.len_utf8());
        }
    }
    None
}

fn indent_of(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ' || *c == '\t').count()
}

/// Whether a bracket is open at the end of the text, which ends a value at the next comma.
fn in_brackets(before: &str) -> bool {
    let count = |brackets: [char; 2]| before.matches(brackets).count();
    count(['{', '[']) > count(['}', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut mask = Mask::default();
        let lines = text.lines().map(|line| {
            let mut shown = line.to_owned();
            for range in mask.next(line).into_iter().rev() {
                shown.replace_range(range, COVER);
            }
            shown
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn covers_values_of_keys_that_sound_like_secrets() {
        assert_eq!(masked("token: abc def # x"), "token: ***");
        assert_eq!(masked("- { secret: abc, refresh: 10m }"), "- { secret: ***, refresh: 10m }");
        assert_eq!(masked("- { secret: \"a, b\", refresh: 10m }"), "- { secret: ***, refresh: 10m }");
        assert_eq!(masked("{\"secret\":\"x\",\"a\":1}"), "{\"secret\":***,\"a\":1}");
        assert_eq!(masked("secret: \"abc\" def"), "secret: ***");
        assert_eq!(masked("secret:abc"), "secret:***");
        assert_eq!(masked("{ a: { secret: [b, { c: d }] }, e: f }"), "{ a: { secret: *** }, e: f }");
        assert_eq!(masked("{ secret: a\n  b,\n c: d }"), "{ secret: ***\n***\n***");
        assert_eq!(masked("client_secret: x"), "client_secret: ***");
        assert_eq!(masked("secert: x"), "secert: ***");
        assert_eq!(masked("authorization: Bearer x"), "authorization: ***");
        assert_eq!(masked("url: http://me:pw@host/"), "url: http://***@host/");
    }

    #[test]
    fn leaves_the_rest_alone() {
        for text in [
            "token_from: [bearer, { cookie: token }]",
            "service: users",
            "- http://secret-store:8080",
            "prefix: /secret",
            "set: { a: b }",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn follows_values_over_lines() {
        let text = "keys:\n  - secret: >-\n      abc\n\n      def\n    refresh: 1s\nnext: 1";
        let shown = "keys:\n  - secret: ***\n***\n***\n***\n    refresh: 1s\nnext: 1";
        assert_eq!(
            masked(text),
            shown.replace("\n***\n***\n***", "\n***\n\n***").replace("\n\n***", "\n***\n***")
        );
        assert_eq!(masked("secret: \"abc\ndef\" # c\nx: 1"), "secret: ***\n***\nx: 1");
    }
}
