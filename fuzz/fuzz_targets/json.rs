//! See `checks/json.rs`.

#![no_main]

#[path = "../checks/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each target runs one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::json(input));
