//! An address as text, in place: one is written for each connection, and the way over `fmt` costs more than all
//! else that is known of a connection.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

/// The longest: `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const MAX_BYTES: usize = 45;

#[derive(Clone, Copy)]
pub struct AddressText {
    bytes: [u8; MAX_BYTES],
    length: u8,
}

impl AddressText {
    pub fn of(address: IpAddr) -> AddressText {
        let mut text = AddressText { bytes: [0; MAX_BYTES], length: 0 };
        match address {
            IpAddr::V4(address) => {
                for (position, octet) in address.octets().into_iter().enumerate() {
                    if position > 0 {
                        text.push(b".");
                    }
                    text.push(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            IpAddr::V6(address) => {
                let mut rest = &mut text.bytes[..];
                write!(rest, "{address}").expect("no address is longer");
                text.length = (MAX_BYTES - rest.len()) as u8;
            }
        }
        text
    }

    fn push(&mut self, piece: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + piece.len()].copy_from_slice(piece);
        self.length += piece.len() as u8;
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("addresses are written in ASCII")
    }
}

impl fmt::Debug for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_have_room() {
        for text in [
            "255.255.255.255",
            "0.0.0.0",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::",
            "::ffff:255.255.255.255",
        ] {
            assert_eq!(AddressText::of(text.parse().unwrap()).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_standard_library_writes(address in any::<IpAddr>()) {
            let text = AddressText::of(address);
            prop_assert_eq!(text.as_str(), address.to_string());
        }
    }
}
