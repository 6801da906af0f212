//! The checks of the fuzz targets, over the seeds in `fuzz/corpus` and some mutations of each: the same ones in every
//! run. `FUZZ_MUTATIONS` asks for more.

#![allow(clippy::print_stderr, reason = "the input that failed is shown")]

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Bytes that mean something to one parser or another.
const TOKENS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"/",
    b"//",
    b"..",
    b"%2e",
    b"%2f",
    b"%00",
    b"%c0%ae",
    b"?",
    b"#",
    b"@",
    b"[",
    b"]",
    b"{",
    b"}",
    b".",
    b"0",
    b"ffffffffffffffff",
    b"-1",
    b"+",
    b"\xff",
    b"\xc3\xa9",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1",
    b"null",
    b"for=",
    b"unknown",
];

fn mutations() -> usize {
    std::env::var("FUZZ_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

/// Every seed, and so many mutations of each.
fn run(name: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut seeds: Vec<_> = std::fs::read_dir(&directory)
        .expect("the target has seeds")
        .map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    let mut rng = fastrand::Rng::with_seed(7);
    for seed in &seeds {
        holds(name, check, seed);
        for _ in 0..mutations() {
            holds(name, check, &mutated(seed, &seeds, &mut rng));
        }
    }
}

fn holds(name: &str, check: fn(&[u8]), input: &[u8]) {
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{name} fails for b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(failure);
    }
}

/// Some of these changes, one upon the other.
fn mutated(seed: &[u8], seeds: &[Vec<u8>], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(0..=bytes.len());
        let end = (at + rng.usize(0..8)).min(bytes.len());
        match rng.u8(0..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..end, TOKENS[rng.usize(..TOKENS.len())].iter().copied())),
            3 => bytes.insert(at, rng.u8(..)),
            4 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            4 => {}
            _ => {
                let other = &seeds[rng.usize(..seeds.len())];
                let from = rng.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

macro_rules! targets {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name), checks::$name);
        }
    )* };
}

targets! { aggregate batch chunked config forwarded host http1 json jwks jwt path registry response }

/// Each target of libFuzzer runs one of these checks.
#[test]
fn every_target_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = std::fs::read_to_string(root.join("tests/fuzz/main.rs")).expect("readable");
    let listed = here.lines().find_map(|line| line.strip_prefix("targets! {")).expect("the list above");
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets")).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("text");
        let target = name.trim_end_matches(".rs");
        assert!(listed.split(' ').any(|listed| listed == target), "{target} is not run");
    }
}
