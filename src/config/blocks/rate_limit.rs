//! `rate_limits`: how many requests, counted by what.

use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{At, KeyPart, Rate, RateLimit};
use crate::config::reader::{Form, Reader};
use crate::config::values::NonEmpty;
use crate::config::values::text_schema;
use crate::config::values::units::Number;
use crate::config::yaml::{Kind, Node};

/// A rate limit without its name, which is its key.
pub(super) struct RateLimitBody {
    pub key: Vec<KeyPart>,
    rate: Rate,
    burst: u32,
    max_keys: usize,
}

impl RateLimitBody {
    pub fn named(self, name: At<String>) -> RateLimit {
        RateLimit { name, key: self.key, rate: self.rate, burst: self.burst, max_keys: self.max_keys }
    }
}

block! {
    /// How many requests, counted by what.
    "a rate limit" RateLimitBlock => RateLimitBody {
        /// What requests are counted by: ip, route, header:NAME, claim:NAME, or a list of them.
        key: KeyParts ["ip"],
        /// Requests per second, minute or hour.
        rate: Rate ["100/s"],
        /// Requests that may come at once. Default: the number of `rate`.
        burst: Number<1, 4_294_967_295>,
        /// Keys that are remembered. Default 100000.
        max_keys: Number<1, 100_000_000>,
    }
    later { "store", "when_unavailable" }
}

impl RateLimitBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<RateLimitBody> {
        let (key, rate) = (self.key.required::<KeyParts>(), self.rate.required::<Rate>());
        let (burst, max_keys) = (self.burst.optional(), self.max_keys.or(100_000usize));
        let rate = rate?;
        Some(RateLimitBody { key: key?.0, rate, burst: burst?.unwrap_or(rate.count), max_keys: max_keys? })
    }
}

struct KeyParts(Vec<KeyPart>);

impl Value for KeyParts {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::List(_) => NonEmpty::read(node, reader).map(|list| KeyParts(list.0)),
            _ => KeyPart::read(node, reader).map(|part| KeyParts(vec![part])),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [KeyPart::schema(), NonEmpty::<KeyPart>::schema()] })
    }
}

impl Value for KeyPart {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a key to count by", remedy: "write ip, route, header:NAME or claim:NAME" };
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "api_key") {
            reader.not_supported(node.span, "api_key");
            return None;
        }
        reader.parse(node, &form, |text| match text.split_once(':') {
            None if text == "ip" => Ok(KeyPart::Ip),
            None if text == "route" => Ok(KeyPart::Route),
            None if matches!(text, "header" | "claim") => Err(Some(format!("say which: {text}:NAME"))),
            None if text == "client" || text == "client_ip" => Err(Some("write ip".to_owned())),
            Some(("header", name)) => match HeaderName::from_bytes(name.trim().as_bytes()) {
                Ok(name) => Ok(KeyPart::Header(name)),
                Err(_) => Err(Some("the name of a header has letters, digits and `-`".to_owned())),
            },
            Some(("claim", name)) if !name.trim().is_empty() => Ok(KeyPart::Claim(name.trim().to_owned())),
            _ => Err(None),
        })
    }

    fn schema() -> Json {
        text_schema("ip|route|header:.+|claim:.+")
    }
}
