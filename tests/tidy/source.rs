//! The source files of the crate, without the tests in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub struct SourceFile {
    /// From `src/` on: `policy/cors.rs`.
    pub name: String,
    pub text: String,
    /// Compiled for tests only.
    pub is_test: bool,
}

impl SourceFile {
    /// The lines before the module of tests, numbered from 1. None for a file of tests.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = if self.is_test { Vec::new() } else { self.text.lines().collect() };
        let tests = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(tests).unwrap_or(lines.len());
        lines.into_iter().take(end).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// As `code`, without comments that stand on a line of their own.
    pub fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The path of the module: `policy/cors.rs` and `policy/cors/mod.rs` are `[policy, cors]`.
    pub fn module(&self) -> Vec<String> {
        let name = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        name.split('/').filter(|part| !matches!(*part, "lib" | "main")).map(str::to_owned).collect()
    }
}

/// All files of `src/`.
pub fn sources() -> Vec<SourceFile> {
    let directory = root().join("src");
    let mut files: Vec<SourceFile> = files_below(&directory, "rs")
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&directory).expect("it is below").to_str().expect("UTF-8");
            SourceFile { name: name.to_owned(), text: read(&path), is_test: false }
        })
        .collect();
    let tests: BTreeSet<String> = files.iter().flat_map(test_modules).collect();
    for file in &mut files {
        let module = file.module().join("/");
        file.is_test = tests.iter().any(|test| module == *test || module.starts_with(&format!("{test}/")));
    }
    assert!(files.len() > 100, "the sources were not found");
    files
}

/// The modules that a file declares for tests, in files of their own.
fn test_modules(file: &SourceFile) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let declaration = pair[1].trim_start_matches("pub").trim_start_matches("(crate)");
        declaration.trim_start().strip_prefix("mod ")?.strip_suffix(';')
    });
    declared
        .map(|name| {
            let mut module = file.module();
            module.push(name.to_owned());
            module.join("/")
        })
        .collect()
}

/// All files below a directory whose names end in `.extension`, sorted.
pub fn files_below(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with every line of `broken`, and with what to do about them.
pub fn none(broken: &[String], cure: &str) {
    assert!(broken.is_empty(), "\n  {}\n{cure}\n", broken.join("\n  "));
}

/// An exception: what it is for, and why it may be.
pub type Exceptions<'e> = &'e [(&'e str, &'e str)];

/// Drops what is excepted from `found` (pairs of a name and a message), and adds exceptions that nothing needs.
pub fn except(found: Vec<(String, String)>, exceptions: Exceptions<'_>) -> Vec<String> {
    let needless = exceptions.iter().filter(|(name, _)| !found.iter().any(|(found, _)| found == name));
    let mut broken: Vec<String> = needless.map(|(name, _)| format!("{name}: needs no exception")).collect();
    let excepted = |name: &str| exceptions.iter().any(|(known, _)| *known == name);
    broken.extend(found.into_iter().filter(|(name, _)| !excepted(name)).map(|(_, message)| message));
    broken
}
