//! What the YAML library says about broken syntax, in words that help.

use serde_yaml::granit_parser::ErrorKind::{self, *};

/// What is wrong, and what to do about it.
pub(super) fn words(kind: &ErrorKind) -> (String, &'static str) {
    if let UnexpectedCharacter { character } = kind {
        return (
            format!("a text can't begin with `{}`", character.escape_default()),
            "put the text in quotes",
        );
    }
    if let MismatchedFlowCollectionEnd { open, close } = kind {
        let remedy = if *open == '[' { "close it with `]`" } else { "close it with `}`" };
        return (format!("`{open}` is closed by `{close}`"), remedy);
    }
    match of_brackets(kind).or_else(|| of_lines(kind)).or_else(|| of_text(kind)) {
        Some((message, remedy)) => (message.to_owned(), remedy),
        None => (
            format!("not valid YAML: {kind}"),
            "see the line above it too: an indentation or a quote may be wrong",
        ),
    }
}

fn of_brackets(kind: &ErrorKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        UnclosedFlowCollection { open: '[' } => ("this `[` is never closed", "close it with `]`"),
        UnclosedFlowCollection { .. } => ("this `{` is never closed", "close it with `}`"),
        UnexpectedEofFlowSequence => ("a list is never closed", "close it with `]`"),
        UnexpectedEofFlowMapping | UnexpectedEofImplicitFlowMapping => {
            ("a block of keys is never closed", "close it with `}`")
        }
        MisplacedFlowCollectionEnd => ("this bracket closes nothing", "remove it, or put the text in quotes"),
        ExpectedFlowSequenceSeparator => {
            ("the list goes on without a comma", "put `,` between its values, `]` at its end")
        }
        ExpectedFlowMappingSeparator => {
            ("the block of keys goes on without a comma", "put `,` between its keys, `}` at its end")
        }
        BlockEntryInFlowCollection => {
            ("`-` can't begin an item inside brackets", "separate items by commas inside `[ ]`")
        }
        RecursionLimitExceeded => ("nested too many levels deep", "no block needs so many levels"),
        _ => return None,
    })
}

fn of_lines(kind: &ErrorKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        TabNotAllowed
        | TabInBlockIndentation
        | TabInIndentation
        | TabAtBlockScalarStart
        | TabInPlainScalar => ("a tab can't indent YAML", "indent with spaces"),
        SimpleKeyExpected | InvalidSimpleKey => {
            ("this line has no colon", "write `key: value`; a text over several lines needs `|` or quotes")
        }
        MappingValueNotAllowed | InvalidColonPlacement | FlowMappingValueAdjacentCollection => (
            "a colon isn't expected here",
            "a text that holds `: ` needs quotes; a block of keys begins on its own line",
        ),
        MappingKeyNotAllowed => {
            ("a key isn't expected here", "begin it on a line of its own, indented like its neighbours")
        }
        InvalidMappingValueWhitespace => ("a tab follows the colon", "put a space after the colon"),
        ExpectedBlockMappingKey => (
            "this line doesn't fit the keys above it",
            "indent it exactly like them; a list item begins with `- `",
        ),
        ExpectedBlockSequenceEntry => {
            ("this line doesn't fit the list above it", "begin it with `- `, indented like the items before")
        }
        BlockSequenceEntryNotAllowed | InvalidBlockEntryWhitespace => (
            "a list item isn't expected here",
            "begin the list on its own line below its key, with `- ` before each item",
        ),
        InvalidIndentation
        | InvalidFlowScalarIndent
        | InvalidBlockScalarIndent
        | InvalidQuotedScalarIndent => {
            ("this line is indented differently from its block", "indent it like the lines it belongs to")
        }
        ExpectedNodeContent | UnexpectedEof => ("a value is missing here", "write one, or remove the line"),
        _ => return None,
    })
}

fn of_text(kind: &ErrorKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        UnclosedQuotedScalar | UnexpectedEndOfPlainScalar => {
            ("this quote is never closed", "close it with the same quote")
        }
        InvalidTrailingSingleQuotedScalar | InvalidTrailingDoubleQuotedScalar => (
            "text follows the closing quote",
            "put all of the value inside the quotes, inner ones escaped or doubled",
        ),
        UnknownQuotedScalarEscape | InvalidQuotedScalarHexEscape | InvalidUnicodeEscape => (
            "this escape means nothing inside double quotes",
            "write `\\\\` for a backslash, or use single quotes",
        ),
        InvalidLowSurrogate | InvalidLowSurrogateHexEscape | MissingLowSurrogate | UnpairedLowSurrogate => {
            ("this escape is half of a character", "write the character itself")
        }
        UnknownAnchor => (
            "this alias names no anchor",
            "write `&name` before the block to be repeated, above this line; a text that begins with `*` needs quotes",
        ),
        MissingAnchorOrAliasName => {
            ("`&` and `*` need a name here", "a text that begins with `*` or `&` needs quotes")
        }
        CommentNotSeparated => {
            ("a comment needs a space before its `#`", "put a space before `#`, or the text in quotes")
        }
        CommentInterceptedScalar => (
            "a comment stands inside a text of several lines",
            "put the text in quotes, or the comment above it",
        ),
        BomInsideDocument => ("a byte-order mark stands inside the text", "remove the character"),
        _ => return None,
    })
}
