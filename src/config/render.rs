//! Problems as people and programs read them: with the line, a caret and the cure.
//!
//! Invariant: what [`mask`](super::mask) covers is never printed, and neither is a control character.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use serde_json::{Value as Json, json};
use unicode_width::UnicodeWidthChar;

use super::mask::{COVER, Mask};
use super::source::{Problem, Problems, Severity, Source, Span};
use super::text::counted;

/// Columns of a source line that are shown; a longer one is cut around the caret.
const WIDTH: usize = 120;
/// Problems that are shown in full. Nobody reads more, and they share a cause mostly.
const MOST: usize = 200;

/// The problems with their source lines, and a closing line that counts them.
pub fn render(problems: &Problems, source: &Source, colour: bool) -> String {
    let shown: Vec<&Problem> = problems.iter().take(MOST).collect();
    let lines = lines(source, &shown);
    let gutter = shown.iter().map(|problem| problem.span.line).max().unwrap_or(1).to_string().len();
    let paint = Paint { colour };
    let mut out = String::new();
    for problem in &shown {
        // Writing to a String can't fail.
        let _ = one(&mut out, problem, lines.get(&problem.span.line), source, gutter, &paint);
    }
    let left = problems.iter().count() - shown.len();
    if left > 0 {
        let _ = writeln!(out, "… and {left} more\n");
    }
    let _ = writeln!(out, "{}", summary(problems, source));
    out
}

/// The same for programs: `{"file", "errors", "warnings", "problems": [{severity, line, …}]}`.
pub fn render_json(problems: &Problems, source: &Source) -> Json {
    let list = problems.iter().map(|problem| {
        json!({
            "severity": problem.severity.to_string(),
            "line": problem.span.line,
            "column": problem.span.column,
            "length": problem.span.length,
            "message": problem.message,
            "remedy": problem.remedy,
        })
    });
    let (errors, warnings) = counts(problems);
    json!({
        "file": source.path.display().to_string(),
        "errors": errors,
        "warnings": warnings,
        "problems": list.collect::<Vec<_>>(),
    })
}

fn counts(problems: &Problems) -> (usize, usize) {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    (errors, problems.iter().count() - errors)
}

/// `gateway.yaml: 2 errors, 1 warning`
fn summary(problems: &Problems, source: &Source) -> String {
    let (errors, warnings) = counts(problems);
    let counts = match (errors, warnings) {
        (_, 0) => counted(errors, "error"),
        (0, _) => counted(warnings, "warning"),
        _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    format!("{}: {counts}", source.path.display())
}

fn one(
    out: &mut String,
    problem: &Problem,
    line: Option<&Line<'_>>,
    source: &Source,
    gutter: usize,
    paint: &Paint,
) -> std::fmt::Result {
    let Span { line: number, column, .. } = problem.span;
    let severity = problem.severity;
    let tone = if severity == Severity::Error { Paint::RED } else { Paint::YELLOW };
    writeln!(
        out,
        "{}{}",
        paint.with(tone, &severity.to_string()),
        paint.with(Paint::BOLD, &format!(": {}", printable(&problem.message)))
    )?;
    let arrow = paint.with(Paint::BLUE, &format!("{:gutter$}-->", ""));
    writeln!(out, "{arrow} {}:{number}:{column}", source.path.display())?;
    if let Some(line) = line {
        let excerpt = excerpt(line, problem.span);
        let bar = paint.with(Paint::BLUE, &format!("{:gutter$} |", ""));
        let numbered = paint.with(Paint::BLUE, &format!("{number:gutter$} |"));
        writeln!(out, "{bar}")?;
        writeln!(out, "{}", format!("{numbered} {}", excerpt.text).trim_end())?;
        let carets = "^".repeat(excerpt.length);
        writeln!(out, "{bar} {:1$}{2}", "", excerpt.indent, paint.with(tone, &carets))?;
    }
    if !problem.remedy.is_empty() {
        writeln!(out, "{} {}", paint.with(Paint::CYAN, "help:"), printable(&problem.remedy))?;
    }
    writeln!(out)
}

/// Messages hold names from the file, and a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

struct Paint {
    colour: bool,
}

impl Paint {
    const BOLD: &str = "1";
    const RED: &str = "1;31";
    const YELLOW: &str = "1;33";
    const BLUE: &str = "34";
    const CYAN: &str = "36";

    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A source line and what must not be shown of it.
struct Line<'s> {
    text: &'s str,
    covered: Vec<Range<usize>>,
}

/// The lines that problems point at. The whole text is gone through once, because a secret may have
/// begun on a line before.
fn lines<'s>(source: &'s Source, problems: &[&Problem]) -> BTreeMap<u32, Line<'s>> {
    let mut wanted: BTreeMap<u32, Line<'s>> = BTreeMap::new();
    let Some(last) = problems.iter().map(|problem| problem.span.line).max() else { return wanted };
    let numbers: std::collections::HashSet<u32> = problems.iter().map(|problem| problem.span.line).collect();
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut mask = Mask::default();
    // YAML ends lines with CR LF, LF or CR alone (YAML 1.2 §5.4), and so does its count of lines.
    let mut rest = text;
    for number in 1..=last {
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let line = &rest[..end];
        let covered = mask.next(line);
        if numbers.contains(&number) {
            wanted.insert(number, Line { text: line, covered });
        }
        if end == rest.len() {
            break;
        }
        let ending = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + ending..];
    }
    wanted
}

struct Excerpt {
    text: String,
    /// Columns before the carets.
    indent: usize,
    /// Number of carets, 1 or more.
    length: usize,
}

/// The line as it is shown: secrets covered, tabs and control characters replaced, cut to the width.
fn excerpt(line: &Line<'_>, span: Span) -> Excerpt {
    let start = span.column.saturating_sub(1) as usize;
    let end = start + (span.length.max(1) as usize).min(WIDTH);
    // Only what can be shown is looked at: a line may be as long as the file.
    let window = start.saturating_sub(WIDTH)..end + WIDTH;
    let Cells { cells, from, to, more } = cells(line, window.clone(), start..end);
    let mut columns = Vec::with_capacity(cells.len() + 1);
    columns.push(0);
    for cell in &cells {
        columns.push(columns[columns.len() - 1] + cell.width);
    }
    let width = columns[cells.len()];
    let mut shown = 0..cells.len();
    if width > WIDTH {
        // A third of the width before the caret, the rest behind it; but no room is left over at the end.
        let left = columns[from].saturating_sub(WIDTH / 3).min(width - WIDTH.min(width));
        shown.start = columns.iter().position(|column| *column >= left).unwrap_or(0).min(from);
        let most = columns[shown.start] + WIDTH;
        shown.end = columns.iter().rposition(|column| *column <= most).unwrap_or(cells.len());
    }
    let cut_front = window.start > 0 || shown.start > 0;
    let cut_back = more || shown.end < cells.len();
    let text: String = cells[shown.clone()].iter().map(|cell| cell.text.as_str()).collect();
    let (front, back) = (if cut_front { "…" } else { "" }, if cut_back { "…" } else { "" });
    Excerpt {
        text: format!("{front}{text}{back}").trim_end().to_owned(),
        indent: columns[from] - columns[shown.start] + usize::from(cut_front),
        length: columns[to.min(shown.end)].saturating_sub(columns[from]).max(1),
    }
}

struct Cell {
    text: String,
    width: usize,
}

struct Cells {
    cells: Vec<Cell>,
    /// The cells that the marked characters have become.
    from: usize,
    to: usize,
    /// The line goes on behind the window.
    more: bool,
}

/// What is printed for the characters of `window`, of which `marked` are to be underlined.
fn cells(line: &Line<'_>, window: Range<usize>, marked: Range<usize>) -> Cells {
    let mut cells: Vec<Cell> = Vec::new();
    let (mut from, mut to) = (None, None);
    let mut covering = false;
    let mut more = false;
    for (index, (offset, c)) in line.text.char_indices().enumerate().skip(window.start) {
        if index >= window.end {
            more = true;
            break;
        }
        let covered = line.covered.iter().any(|range| range.contains(&offset));
        if covered && !covering {
            cells.push(Cell { text: COVER.to_owned(), width: COVER.len() });
        }
        covering = covered;
        // Anything inside a cover points at all of it.
        let here = cells.len() - usize::from(covered);
        if index == marked.start {
            from = Some(here);
        }
        if index == marked.end {
            to = Some(cells.len());
        }
        let (text, width) = match c {
            _ if covered => continue,
            '\t' => ("    ".to_owned(), 4),
            c if c.is_control() => ("\u{fffd}".to_owned(), 1),
            c => (c.to_string(), c.width().unwrap_or(0)),
        };
        cells.push(Cell { text, width });
    }
    let from = from.unwrap_or(cells.len());
    let to = to.unwrap_or(cells.len()).max(from);
    Cells { cells, from, to, more }
}
