//! Arguments → a command → an exit code.

use std::process::ExitCode;

/// jemalloc keeps the memory of many small, short-lived objects from fragmenting, and its background
/// threads give back what a burst has left.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(gatehouse::cli::main())
}
