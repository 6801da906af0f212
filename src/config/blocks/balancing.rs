//! `load_balancing`: how an instance is chosen.

use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{At, ConsistentHash, HashKey, LoadBalancing, Sticky};
use crate::config::reader::{Form, Reader, has_variables, shown};
use crate::config::secret::Secret;
use crate::config::text::quoted;
use crate::config::values::http::CookieName;
use crate::config::values::{choice, choice_schema, text_schema};
use crate::config::yaml::{Kind, Node};

const RULES: [(&str, Plain); 5] = [
    ("round_robin", Plain::RoundRobin),
    ("weighted", Plain::Weighted),
    ("random", Plain::Random),
    ("least_requests", Plain::LeastRequests),
    ("peak_ewma", Plain::PeakEwma),
];

/// A rule that is a word.
#[derive(Clone, Copy)]
enum Plain {
    RoundRobin,
    Weighted,
    Random,
    LeastRequests,
    PeakEwma,
}

/// A word, or `{ consistent_hash: { key: … } }`.
impl Value for LoadBalancing {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(entries)
                if let [only] = &entries[..]
                    && RULES.iter().any(|(word, _)| *word == only.key) =>
            {
                let word = &only.key;
                let remedy = format!("write `load_balancing: {word}`");
                reader.error(only.key_span, format!("{} has no settings", quoted(word)), remedy);
                None
            }
            Kind::Map(_) => KeyedRule::read(node, reader).map(|rule| LoadBalancing::ConsistentHash(rule.0)),
            Kind::Scalar(scalar) if scalar.text == "consistent_hash" => {
                reader.error(
                    node.span,
                    "consistent_hash needs a key",
                    "write `load_balancing: { consistent_hash: { key: header:x-user-id } }`",
                );
                None
            }
            _ => Some(match choice(node, reader, "a rule of load balancing", &RULES, &[])? {
                Plain::RoundRobin => LoadBalancing::RoundRobin,
                Plain::Weighted => LoadBalancing::Weighted,
                Plain::Random => LoadBalancing::Random,
                Plain::LeastRequests => LoadBalancing::LeastRequests,
                Plain::PeakEwma => LoadBalancing::PeakEwma,
            }),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [choice_schema(&RULES), KeyedRule::schema()] })
    }
}

struct KeyedRule(ConsistentHash);

block! {
    /// A rule with settings.
    "a rule of load balancing" KeyedRuleBlock => KeyedRule {
        /// Requests with the same key go to the same instance, as long as that can take them.
        consistent_hash: ConsistentHash ["{ key: header:x-user-id }"],
    }
}

impl KeyedRuleBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<KeyedRule> {
        self.consistent_hash.required().map(KeyedRule)
    }
}

block! {
    /// Requests with the same key go to the same instance.
    "a consistent_hash block" ConsistentHashBlock => ConsistentHash {
        /// What of a request is its key: header:NAME, cookie:NAME, claim:NAME, ip or path.
        key: HashKey ["header:x-user-id"],
        /// How much of the mean load one instance takes; beyond that the next one does. `off` for no bound. Default 125%.
        max_load: MaxLoad,
    }
}

impl ConsistentHashBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<ConsistentHash> {
        let (key, max_load) = (self.key.required(), self.max_load.or(MaxLoad(Some(125))));
        let MaxLoad(max_load) = max_load?;
        Some(ConsistentHash { key: key?, max_load })
    }
}

block! {
    /// A client stays with the instance that answered it first.
    "a sticky block" StickyBlock => Sticky {
        /// The name of the cookie that says which.
        cookie: CookieName ["gatehouse_instance"],
        /// What its value is signed with, the same in all gateways. Default: random, anew with each start.
        secret: At<Secret>,
    }
}

/// Of a secret in characters: fewer could be found by trying.
const SHORTEST_SECRET: usize = 16;

impl StickyBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Sticky> {
        let (cookie, secret) = (self.cookie.required(), self.secret.optional::<At<Secret>>());
        let secret = secret?;
        if let Some(short) = secret.as_ref().filter(|secret| secret.value.expose().len() < SHORTEST_SECRET) {
            reader.error(
                short.span,
                format!("this secret is too short: it needs {SHORTEST_SECRET} characters"),
                "make one with `openssl rand -base64 32`, or remove it for a random one",
            );
            return None;
        }
        Some(Sticky { cookie: cookie?, secret: secret.map(|secret| secret.value) })
    }
}

impl Value for HashKey {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a key of requests",
            remedy: "write header:NAME, cookie:NAME, claim:NAME, ip or path",
        };
        reader.parse(node, &form, |text| match text.split_once(':') {
            None if text == "ip" => Ok(HashKey::Ip),
            None if text == "path" => Ok(HashKey::Path),
            None if matches!(text, "header" | "cookie" | "claim") => {
                Err(Some(format!("say which: {text}:NAME")))
            }
            None if text == "client" || text == "client_ip" => Err(Some("write ip".to_owned())),
            None if text == "uri" || text == "url" => Err(Some("write path".to_owned())),
            Some(("header", name)) => match HeaderName::from_bytes(name.trim().as_bytes()) {
                Ok(name) => Ok(HashKey::Header(name)),
                Err(_) => Err(Some("the name of a header has letters, digits and `-`".to_owned())),
            },
            // RFC 6265 §4.1.1: a token, as the name of a field is.
            Some(("cookie", name)) => match HeaderName::from_bytes(name.trim().as_bytes()) {
                Ok(_) => Ok(HashKey::Cookie(name.trim().to_owned())),
                Err(_) => Err(Some("the name of a cookie has letters, digits, `-`, `_` and `.`".to_owned())),
            },
            Some(("claim", name)) if !name.trim().is_empty() => Ok(HashKey::Claim(name.trim().to_owned())),
            _ => Err(None),
        })
    }

    fn schema() -> Json {
        text_schema("ip|path|header:.+|cookie:.+|claim:.+")
    }
}

/// A percentage above 100, or `off`.
struct MaxLoad(Option<u16>);

const LARGEST_LOAD: u16 = 1000;

impl Value for MaxLoad {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        // For older YAML, `off` is another way to write false.
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off" || scalar.text == "false") {
            return Some(MaxLoad(None));
        }
        let form = Form { name: "a percentage", remedy: "write a percentage above 100: 125%, or off" };
        let percent = reader.parse(node, &form, |text| match text.strip_suffix('%') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(digits.parse::<u16>().unwrap_or(u16::MAX))
            }
            _ => Err(None),
        })?;
        if !(101..=LARGEST_LOAD).contains(&percent) {
            let found = if has_variables(node) { "this".to_owned() } else { shown(node) };
            let message = format!("{found} is outside 101% to {LARGEST_LOAD}%");
            reader.error(
                node.span,
                message,
                "every instance must be able to take a little more than the mean",
            );
            return None;
        }
        Some(MaxLoad(Some(percent)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [text_schema("[0-9]+%|off"), { "const": false }] })
    }
}
