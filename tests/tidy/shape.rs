//! How large files and functions get, and what every file has.

use super::source::{self, Exceptions, SourceFile, except, files_below, none, read, root};

const MOST_LINES_OF_A_FILE: usize = 500;
const MOST_LINES_OF_A_FUNCTION: usize = 70;

const LARGE_FILES: Exceptions<'_> = &[];

const LONG_FUNCTIONS: Exceptions<'_> = &[];

/// Lines without tests.
#[test]
fn files_are_small_rooms() {
    let large = source::sources().into_iter().filter_map(|file| {
        let lines = file.code().count();
        let message = format!("src/{} has {lines} lines without its tests", file.name);
        (lines > MOST_LINES_OF_A_FILE).then_some((file.name, message))
    });
    none(&except(large.collect(), LARGE_FILES), "Split it along what it does, or give the reason here.");
}

#[test]
fn functions_fit_on_a_screen() {
    let mut long = Vec::new();
    for file in source::sources() {
        for Function { name, line, lines } in functions(&file) {
            if lines > MOST_LINES_OF_A_FUNCTION {
                let message = format!("src/{}:{line}: {name} has {lines} lines", file.name);
                long.push((format!("{}: {name}", file.name), message));
            }
        }
    }
    none(
        &except(long, LONG_FUNCTIONS),
        "Leave the branching and move the leaves out, or give the reason here.",
    );
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// The functions of a formatted file: each ends with a brace in the column in which it began.
fn functions(file: &SourceFile) -> Vec<Function> {
    let begins = regex::Regex::new(r"^( *)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn ([a-z_0-9]+)")
        .expect("a good pattern");
    let lines: Vec<(usize, &str)> = file.code().collect();
    let mut found = Vec::new();
    for (index, (line, text)) in lines.iter().enumerate() {
        let Some(begun) = begins.captures(text) else { continue };
        if text.ends_with(['}', ';']) {
            continue;
        }
        let end = format!("{}}}", &begun[1]);
        let declared = format!("{});", &begun[1]);
        let last = lines[index..].iter().find(|(_, text)| *text == end || text.starts_with(&declared));
        let last = last.map_or(*line, |(last, _)| *last);
        found.push(Function { name: begun[2].to_owned(), line: *line, lines: last - line + 1 });
    }
    found
}

#[test]
fn functions_are_measured_from_signature_to_brace() {
    let text = "impl A {\n    pub fn one(\n        &self,\n    ) -> u8 {\n        1\n    }\n\n    fn short() {}\n}\n";
    let file = SourceFile { name: "a.rs".into(), text: text.into(), is_test: false };
    let found: Vec<_> = functions(&file).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 2, 5)]);
}

/// A file says first what it is for.
#[test]
fn every_file_begins_with_its_purpose() {
    let all = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    let files = all.iter().flat_map(|directory| files_below(&root().join(directory), "rs"));
    let silent = files.filter(|file| !read(file).starts_with("//! "));
    none(
        &silent.map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "Begin it with `//! ` and what it is for.",
    );
}

/// What is not done is not here; what is planned is in the issues.
#[test]
fn nothing_is_left_for_later() {
    // Written in two halves, so that this file isn't found.
    let halves = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["HA", "CK:"], ["#[", "ignore"]];
    let marks = halves.map(|halves| halves.concat());
    let mut found = Vec::new();
    for directory in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for file in files_below(&root().join(directory), "rs") {
            for (index, line) in read(&file).lines().enumerate() {
                if marks.iter().any(|mark| line.contains(mark)) {
                    found.push(format!("{}:{}: {}", file.display(), index + 1, line.trim()));
                }
            }
        }
    }
    none(&found, "Do it, or open an issue.");
}
