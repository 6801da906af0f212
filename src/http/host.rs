//! The host that a request is for: one form for every way of writing it.
//!
//! A host is matched in lower case, without a trailing dot and without its port. What is neither a
//! name, an IPv4 nor a bracketed IPv6 address is refused, so that matching and the instance cannot
//! read it differently.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The longest name that DNS knows (RFC 1035 §2.3.4), without the trailing dot.
const MAX_NAME_BYTES: usize = 253;

/// A host in its one form, and the port beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower case, no trailing dot; an IPv6 address in brackets and in the form of RFC 5952.
    /// Borrowed when it was written so.
    pub name: Cow<'a, str>,
    pub port: Option<u16>,
}

/// Why a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    #[error("the host has a label without a character")]
    EmptyLabel,
    #[error("the authority has user information")]
    UserInformation,
    #[error("the host has the byte {0:#04x}")]
    ForbiddenByte(u8),
    #[error("the host is not an IPv6 address in brackets")]
    Ipv6,
    #[error("the port is not a number from 0 to 65535")]
    Port,
}

/// Reads a `Host` value or an authority: `uri-host [ ":" port ]` (RFC 9110 §7.2).
///
/// Stricter than RFC 3986 §3.2.2, whose registered names may have escapes and sub-delimiters: no name
/// in use has them, and `a,b` is more likely two hosts than one. IPvFuture and zones are refused too.
pub fn parse(authority: &str) -> Result<Host<'_>, HostError> {
    // No part of a host can have an `@`, so it is looked for only to tell the reason.
    let why = |error| if authority.contains('@') { HostError::UserInformation } else { error };
    parse_parts(authority).map_err(why)
}

fn parse_parts(authority: &str) -> Result<Host<'_>, HostError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(HostError::Ipv6)?;
        let port = match after.strip_prefix(':') {
            Some(digits) => parse_port(digits)?,
            None if after.is_empty() => None,
            None => return Err(HostError::Ipv6),
        };
        let bracketed = &authority[..address.len() + 2];
        return Ok(Host { name: parse_ipv6(bracketed, address)?, port });
    }
    // Hosts are short, and searchers are made for long texts.
    let (name, port) = match authority.bytes().position(|byte| byte == b':') {
        Some(colon) => (&authority[..colon], parse_port(&authority[colon + 1..])?),
        None => (authority, None),
    };
    Ok(Host { name: parse_name(name)?, port })
}

fn parse_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(HostError::TooLong);
    }
    let mut has_upper = false;
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if previous == b'.' => return Err(HostError::EmptyLabel),
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {}
            b'A'..=b'Z' => has_upper = true,
            _ => return Err(HostError::ForbiddenByte(byte)),
        }
        previous = byte;
    }
    if previous == b'.' {
        return Err(HostError::EmptyLabel);
    }
    Ok(if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

fn parse_ipv6<'a>(bracketed: &'a str, address: &str) -> Result<Cow<'a, str>, HostError> {
    let parsed: Ipv6Addr = address.parse().map_err(|_| HostError::Ipv6)?;
    let canonical = format!("[{parsed}]");
    Ok(if canonical == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(canonical) })
}

/// `port = *DIGIT` (RFC 3986 §3.2.3): it may be empty, which is no port.
fn parse_port(digits: &str) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None);
    }
    // `u16::from_str` would take a plus sign.
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    digits.parse().map(Some).map_err(|_| HostError::Port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_form_for_every_way_of_writing() {
        let table = [
            ("example.com", "example.com", None),
            ("Example.COM", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:8080", "example.com", Some(8080)),
            ("example.com:", "example.com", None),
            ("localhost:0", "localhost", Some(0)),
            ("my_service-1", "my_service-1", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::1]:", "[::1]", None),
            ("[0:0::0:1]", "[::1]", None),
            ("[2001:DB8::A]", "[2001:db8::a]", None),
        ];
        for (raw, name, port) in table {
            assert_eq!(parse(raw), Ok(Host { name: Cow::Borrowed(name), port }), "{raw}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        use HostError::*;
        let long = "a".repeat(254);
        let table = [
            ("", Empty),
            (".", Empty),
            (":80", Empty),
            (long.as_str(), TooLong),
            ("..", EmptyLabel),
            (".example.com", EmptyLabel),
            ("example..com", EmptyLabel),
            ("example.com..", EmptyLabel),
            ("user@example.com", UserInformation),
            ("user:secret@example.com:80", UserInformation),
            ("a b", ForbiddenByte(b' ')),
            ("a,b", ForbiddenByte(b',')),
            ("a/b", ForbiddenByte(b'/')),
            ("a\\b", ForbiddenByte(b'\\')),
            ("%65xample.com", ForbiddenByte(b'%')),
            ("*.example.com", ForbiddenByte(b'*')),
            ("b\u{fc}cher.example", ForbiddenByte(0xc3)),
            ("a\0", ForbiddenByte(0)),
            ("[::1", Ipv6),
            ("[]", Ipv6),
            ("[::1]x", Ipv6),
            ("[127.0.0.1]", Ipv6),
            ("[fe80::1%25eth0]", Ipv6),
            ("[v1.x]", Ipv6),
            ("::1", Port),
            ("a:b", Port),
            ("a:80:80", Port),
            ("a:+80", Port),
            ("a:65536", Port),
            ("a:000080", Port),
            ("[::1]:http", Port),
        ];
        for (raw, expected) in table {
            assert_eq!(parse(raw), Err(expected), "{raw:?}");
        }
    }

    #[test]
    fn lower_case_is_borrowed() {
        for raw in ["example.com:80", "example.com.", "[::1]"] {
            assert!(matches!(parse(raw).expect("a valid host").name, Cow::Borrowed(_)), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_a_fixed_point(raw in "[a-cA-C.:\\[\\]0-9@%_-]{0,12}|\\PC{0,12}") {
            let Ok(host) = parse(&raw) else { return Ok(()) };
            let again = parse(&host.name).expect("what was parsed is a valid host");
            prop_assert_eq!(again, Host { name: host.name.clone(), port: None });
        }
    }
}
