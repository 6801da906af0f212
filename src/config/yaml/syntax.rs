//! Broken syntax: the place where it broke, which is often not where the YAML library noticed.

use serde_yaml::granit_parser::{ErrorKind, Marker, ScanError};

use super::words::words;
use crate::config::source::{Problems, Span};

/// The place of a marker. Longer than its line, a span ends with the line.
pub(super) fn place(start: &Marker, characters: usize, text: &str) -> Span {
    let on_line = start
        .byte_offset()
        .and_then(|offset| text.get(offset..))
        .map_or(1, |rest| rest.chars().take(characters).take_while(|c| !matches!(c, '\n' | '\r')).count());
    Span {
        line: u32::try_from(start.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(start.col() + 1).unwrap_or(u32::MAX),
        length: u32::try_from(on_line.min(characters)).unwrap_or(u32::MAX).max(1),
    }
}

pub(super) fn explain(error: &ScanError, text: &str, problems: &mut Problems) {
    if let Some(span) = bare_variable(error, text) {
        problems.error(
            span,
            "between brackets a variable needs quotes",
            "write \"${NAME}\": YAML takes its braces for those of a block",
        );
        return;
    }
    if let Some((span, key)) = missing_colon(error, text) {
        problems.error(span, "a colon is missing behind this key", format!("write `{key}`"));
        return;
    }
    if let Some(span) = late_quote(error, text) {
        let line = error.marker().line();
        problems.error(
            span,
            format!("the text that this quote begins ends only in line {line}"),
            "close it where the text ends",
        );
        return;
    }
    match unclosed(error.kind(), text, error.marker()) {
        Some((span, opener)) => {
            let closer = match opener {
                '[' => ']',
                '{' => '}',
                quote => quote,
            };
            problems.error(
                span,
                format!("this `{opener}` is never closed"),
                format!("close it with `{closer}`"),
            );
        }
        None => {
            let (message, remedy) = words(error.kind());
            let span = indenting_tab(error, text).unwrap_or_else(|| place(error.marker(), 1, text));
            problems.error(span, message, remedy);
        }
    }
}

/// `{ a: ${NAME} }`, where the brace of the variable opens a block: nobody guesses that from what the
/// library says.
fn bare_variable(error: &ScanError, text: &str) -> Option<Span> {
    use ErrorKind::*;
    if !matches!(error.kind(), ExpectedFlowMappingSeparator | ExpectedFlowSequenceSeparator) {
        return None;
    }
    let offset = error.marker().byte_offset()?;
    let line = line_at(text, offset);
    let start = line.as_ptr() as usize - text.as_ptr() as usize;
    let before = line.get(..(offset - start + 1).min(line.len()))?;
    let dollar = before.rfind("${").filter(|dollar| !before[*dollar..].contains('}'))?;
    let column = before[..dollar].chars().count() + 1;
    let length = line[dollar..].find('}').map_or(2, |end| line[dollar..=dollar + end].chars().count());
    Some(Span {
        line: u32::try_from(error.marker().line()).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        length: u32::try_from(length).unwrap_or(u32::MAX),
    })
}

/// `timeouts { connect: 1s }`: the library notices only the colon inside the brackets.
fn missing_colon(error: &ScanError, text: &str) -> Option<(Span, String)> {
    use ErrorKind::*;
    if !matches!(error.kind(), MappingValueNotAllowed | InvalidColonPlacement) {
        return None;
    }
    let line = line_at(text, error.marker().byte_offset()?);
    let key_on = line.trim_start_matches([' ', '-']);
    let end = key_on.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'))?;
    let (key, rest) = key_on.split_at(end);
    let opener = rest.trim_start_matches(' ').chars().next().filter(|c| matches!(c, '{' | '['))?;
    let span = Span {
        line: u32::try_from(error.marker().line()).unwrap_or(u32::MAX),
        // All that is before the bracket is ASCII.
        column: u32::try_from(line.len() - rest.len() + 1).unwrap_or(u32::MAX),
        length: 1,
    };
    (!key.is_empty()).then(|| (span, format!("{key}: {opener}")))
}

/// A forgotten quote ends at the next one, maybe lines below, and the library complains of what follows that.
/// We point where the text begins.
fn late_quote(error: &ScanError, text: &str) -> Option<Span> {
    use ErrorKind::*;
    if !matches!(error.kind(), InvalidTrailingSingleQuotedScalar | InvalidTrailingDoubleQuotedScalar) {
        return None;
    }
    let until = text.get(..error.marker().byte_offset()?)?.trim_end();
    let (offset, _) = open_at_end(until.strip_suffix(['"', '\''])?).quote?;
    until[offset..].contains('\n').then(|| at(text, offset))
}

/// The first tab among the blanks that a line begins with: the library points behind them, or to the end
/// of the line before when that ends with a text.
fn indenting_tab(error: &ScanError, text: &str) -> Option<Span> {
    use ErrorKind::*;
    let offset = error.marker().byte_offset()?;
    let line = match error.kind() {
        TabNotAllowed | TabInBlockIndentation | TabInIndentation => line_at(text, offset),
        TabInPlainScalar => line_at(text, offset + text.get(offset..)?.find('\n')? + 1),
        _ => return None,
    };
    let tab = line.find(|c| c != ' ').filter(|tab| line[*tab..].starts_with('\t'))?;
    Some(at(text, line.as_ptr() as usize - text.as_ptr() as usize + tab))
}

/// What is unclosed the library notices far below, in other words. We point where it was opened.
fn unclosed(kind: &ErrorKind, text: &str, noticed: &Marker) -> Option<(Span, char)> {
    use ErrorKind::*;
    let until = noticed.byte_offset().unwrap_or(text.len()).min(text.len());
    let until = (until..=text.len()).find(|index| text.is_char_boundary(*index))?;
    let open = open_at_end(&text[..until]);
    let (offset, opener) = match kind {
        UnclosedQuotedScalar | InvalidQuotedScalarIndent | DocumentIndicatorInQuotedScalar => open.quote?,
        UnclosedFlowCollection { open: opener } => *open.brackets.iter().rev().find(|(_, c)| c == opener)?,
        UnexpectedEofFlowSequence | UnexpectedEofFlowMapping | UnexpectedEofImplicitFlowMapping => {
            *open.brackets.last()?
        }
        // What follows looks like a block at the left: it isn't meant to be inside the brackets.
        ExpectedFlowSequenceSeparator
        | ExpectedFlowMappingSeparator
        | MappingValueNotAllowed
        | InvalidColonPlacement
        | SimpleKeyExpected
        | InvalidSimpleKey
        | BlockEntryInFlowCollection
        | InvalidFlowScalarIndent
        | InvalidIndentation => {
            let innermost = *open.brackets.last()?;
            let (opened, noticed) = (line_at(text, innermost.0), line_at(text, until));
            let indent = |line: &str| line.len() - line.trim_start().len();
            let left = opened.as_ptr() != noticed.as_ptr() && indent(noticed) <= indent(opened);
            left.then_some(innermost)?
        }
        _ => return None,
    };
    Some((at(text, offset), opener))
}

/// The place of one character.
fn at(text: &str, offset: usize) -> Span {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Span {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        length: 1,
    }
}

/// The line that an offset is in.
fn line_at(text: &str, offset: usize) -> &str {
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or("")
}

/// Brackets and the quote that are open at the end of a text, with their offsets.
#[derive(Default)]
struct Open {
    brackets: Vec<(usize, char)>,
    quote: Option<(usize, char)>,
}

fn open_at_end(text: &str) -> Open {
    let mut open = Open::default();
    let mut before = '\n';
    let mut characters = text.char_indices();
    while let Some((offset, c)) = characters.next() {
        match (open.quote, c) {
            (Some((_, '"')), '\\') => {
                characters.next();
            }
            (Some((_, quote)), c) if quote == c => open.quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if matches!(before, ' ' | '\n' | '[' | '{' | ',' | ':') => {
                open.quote = Some((offset, c));
            }
            (None, '#') if before.is_whitespace() => {
                before = characters.find(|(_, c)| *c == '\n').map_or('\n', |(_, c)| c);
                continue;
            }
            (None, '[' | '{') => open.brackets.push((offset, c)),
            (None, ']' | '}') => {
                open.brackets.pop();
            }
            _ => {}
        }
        before = c;
    }
    open
}
