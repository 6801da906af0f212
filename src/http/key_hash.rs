//! Reduces what requests are told apart by (a client, a field, a claim) to a number.
//!
//! Invariant: different values give different input to the hash, since every value is written with a tag and its
//! length. Whether they then give different numbers is up to the hash and its key.

use std::hash::Hasher;
use std::net::IpAddr;

use http::HeaderName;
use serde_json::Value;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::fields::Fields;

#[derive(Clone, Copy, Debug)]
pub struct KeyHasher(SipHasher13);

/// Begins the input of a value, so that no two kinds of value can be taken for one another.
#[repr(u8)]
enum Tag {
    Absent,
    Ipv4,
    Ipv6,
    Bytes,
    False,
    True,
    Unsigned,
    Signed,
    Float,
    List,
    Map,
}

impl KeyHasher {
    /// With a key that nobody knows, nobody can choose values that collide. With one that all gateways know, all come
    /// to the same number.
    pub fn keyed(one: u64, two: u64) -> Self {
        KeyHasher(SipHasher13::new_with_keys(one, two))
    }

    pub fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }

    pub fn absent(&mut self) {
        self.tag(Tag::Absent);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.tag(Tag::Bytes);
        self.0.write_u64(bytes.len() as u64);
        self.0.write(bytes);
    }

    /// Of an IPv6 address the first 64 bits: a customer is given at least that many addresses, and could
    /// otherwise be as many clients.
    pub fn address(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                self.tag(Tag::Ipv4);
                self.0.write(&address.octets());
            }
            IpAddr::V6(address) => {
                self.tag(Tag::Ipv6);
                self.0.write(&address.octets()[..8]);
            }
        }
    }

    /// All values in their order. Requests without the field share a number.
    pub fn header(&mut self, headers: &Fields, name: &HeaderName) {
        let values = headers.get_all(name);
        if values.clone().next().is_none() {
            return self.absent();
        }
        self.tag(Tag::List);
        self.0.write_u64(values.clone().count() as u64);
        for value in values {
            self.bytes(value);
        }
    }

    /// `null` is no identity: it counts as absent. The depth is bounded by the parser that made the value.
    pub fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.absent(),
            Value::Bool(false) => self.tag(Tag::False),
            Value::Bool(true) => self.tag(Tag::True),
            Value::Number(number) => {
                let (tag, bits) = if let Some(number) = number.as_u64() {
                    (Tag::Unsigned, number)
                } else if let Some(number) = number.as_i64() {
                    (Tag::Signed, number as u64)
                } else {
                    (Tag::Float, number.as_f64().unwrap_or_default().to_bits())
                };
                self.tag(tag);
                self.0.write_u64(bits);
            }
            Value::String(text) => self.bytes(text.as_bytes()),
            Value::Array(values) => {
                self.tag(Tag::List);
                self.0.write_u64(values.len() as u64);
                values.iter().for_each(|value| self.json(value));
            }
            Value::Object(members) => {
                self.tag(Tag::Map);
                self.0.write_u64(members.len() as u64);
                for (name, value) in members {
                    self.bytes(name.as_bytes());
                    self.json(value);
                }
            }
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.0.write_u8(tag as u8);
    }
}
