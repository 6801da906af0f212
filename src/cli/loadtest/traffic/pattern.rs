//! A text that a regular expression matches.

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Longer ones are nothing that a request should hold.
const MAX_BYTES: usize = 1024;

/// A short text that the whole of `pattern` matches. `None` where the simplest one isn't (it may need to look around).
pub fn sample(pattern: &str) -> Option<String> {
    let parsed = regex_syntax::parse(pattern).ok()?;
    let mut out = String::new();
    push(&parsed, &mut out)?;
    let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).ok()?;
    whole.is_match(&out).then_some(out)
}

fn push(hir: &Hir, out: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => out.push(member(class)?),
        // Once rather than never: `.*` then stands for something.
        HirKind::Repetition(repetition) => {
            let times = repetition.min.max(1).min(repetition.max.unwrap_or(u32::MAX));
            for _ in 0..times {
                push(&repetition.sub, out)?;
                if out.len() > MAX_BYTES {
                    return None;
                }
            }
        }
        HirKind::Capture(capture) => push(&capture.sub, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| push(part, out))?,
        HirKind::Alternation(parts) => push(parts.first()?, out)?,
    }
    (out.len() <= MAX_BYTES).then_some(())
}

/// A plain character where the class has one.
fn member(class: &Class) -> Option<char> {
    const PLAIN: [char; 4] = ['1', 'a', 'A', '-'];
    match class {
        Class::Unicode(class) => {
            let has = |c: char| class.iter().any(|range| (range.start()..=range.end()).contains(&c));
            PLAIN.into_iter().find(|c| has(*c)).or_else(|| class.iter().next().map(|range| range.start()))
        }
        Class::Bytes(class) => {
            let has = |c: char| {
                u8::try_from(c)
                    .is_ok_and(|c| class.iter().any(|range| (range.start()..=range.end()).contains(&c)))
            };
            PLAIN.into_iter().find(|c| has(*c))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_match() {
        for (pattern, expected) in [
            ("/v[0-9]+/search", "/v1/search"),
            (".*", "1"),
            ("a{3}|b", "aaa"),
            ("(?i)abc", "aBC"),
            ("[^1a]x?", "Ax"),
            ("\\d{2,4}-\\w", "11-1"),
            ("", ""),
        ] {
            assert_eq!(sample(pattern).as_deref(), Some(expected), "{pattern}");
        }
    }

    #[test]
    fn what_has_no_simple_sample_has_none() {
        for pattern in ["(", "[^\\s\\S]", "a$b", "x{2000}", "\\bx1\\B"] {
            assert_eq!(sample(pattern), None, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_sample_matches_whatever_the_pattern(pattern in "[a-c0-9.*+?|()\\[\\]{},^$\\\\-]{0,20}") {
            if let Some(text) = sample(&pattern) {
                let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).expect("it was compiled before");
                prop_assert!(whole.is_match(&text));
            }
        }
    }
}
