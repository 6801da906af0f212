//! What has to hold of every parser of foreign bytes, for any bytes at all. The fuzz targets run these for as long as they
//! are let, and `tests/fuzz` with the corpora and some thousands of mutations in every test run.

mod aggregate;
mod batch;
mod chunked;
mod config;
mod forwarded;
mod host;
mod http1;
mod json;
mod jwks;
mod jwt;
mod path;
mod registry;
mod response;

pub use aggregate::aggregate;
pub use batch::batch;
pub use chunked::chunked;
pub use config::config;
pub use forwarded::forwarded;
pub use host::host;
pub use http1::http1;
pub use json::json;
pub use jwks::jwks;
pub use jwt::jwt;
pub use path::path;
pub use registry::registry;
pub use response::response;

/// Two numbers to cut the rest of the input at, out of its first two bytes.
fn cuts(input: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (&[first, second], bytes) = input.split_first_chunk()?;
    let at = |byte: u8| usize::from(byte) * (bytes.len() + 1) / 256;
    let (first, second) = (at(first), at(second));
    Some((first.min(second), first.max(second), bytes))
}

/// As text, where it is one.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
