//! Which fields that a gateway acts on a message has. One look at the names tells, so what is not there,
//! which is nearly everything nearly always, costs no look-up each.

use super::fields::Fields;
use super::forwarded::claims_origin;
use super::method_override::overrides_method;

/// A set of fields, or of kinds of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notable(u16);

impl Notable {
    pub const CONNECTION: Notable = Notable(1);
    /// Others that describe the connection and not the message: `hop_by_hop` knows them.
    pub const HOP: Notable = Notable(1 << 1);
    pub const EXPECT: Notable = Notable(1 << 2);
    pub const TRACE_PARENT: Notable = Notable(1 << 3);
    pub const TRACE_STATE: Notable = Notable(1 << 4);
    pub const ORIGIN: Notable = Notable(1 << 5);
    /// They say where a request came from: `forwarded` knows them.
    pub const ORIGIN_CLAIM: Notable = Notable(1 << 6);
    /// Names that some services take for others: `alike` knows them.
    pub const UNDERSCORE: Notable = Notable(1 << 7);
    pub const CONTENT_LENGTH: Notable = Notable(1 << 8);
    /// Those that only the gateway says something in: the request's id, who the client is.
    pub const OURS: Notable = Notable(1 << 9);
    pub const MAX_FORWARDS: Notable = Notable(1 << 10);
    /// They ask a service to take a request for one with another method: `method_override` knows them.
    pub const METHOD_OVERRIDE: Notable = Notable(1 << 11);

    pub fn of(fields: &Fields) -> Notable {
        let underscores = fields.may_be_named_with(b'_');
        fields.names().fold(Notable::default(), |all, name| all.and(Notable::kind(name, underscores)))
    }

    /// The same, and whether any name is one of ours.
    pub fn of_request(fields: &Fields, is_ours: impl Fn(&[u8]) -> bool) -> Notable {
        let ours = fields.names().any(is_ours);
        let notable = Notable::of(fields);
        if ours { notable.and(Notable::OURS) } else { notable }
    }

    /// Whether any field describes the connection and not the message.
    pub fn is_of_connection(fields: &Fields) -> bool {
        let hop = |name: &[u8]| {
            matches!(name[0], b'c' | b'h' | b'k' | b'p' | b't' | b'u')
                && Notable::kind(name, false).has(Notable::CONNECTION.and(Notable::HOP))
        };
        fields.names().any(hop)
    }

    pub const fn and(self, other: Notable) -> Notable {
        Notable(self.0 | other.0)
    }

    pub fn has(self, any: Notable) -> bool {
        self.0 & any.0 != 0
    }

    /// `underscores`: it may have some.
    fn kind(name: &[u8], underscores: bool) -> Notable {
        let known = match name[0] {
            b'c' => match name {
                b"connection" => return Notable::CONNECTION,
                b"content-length" => return Notable::CONTENT_LENGTH,
                _ => Notable::default(),
            },
            b'e' if name == b"expect" => return Notable::EXPECT,
            b'h' if name == b"http2-settings" => return Notable::HOP,
            b'k' if name == b"keep-alive" => return Notable::HOP,
            b'm' if name == b"max-forwards" => return Notable::MAX_FORWARDS,
            b'o' if name == b"origin" => return Notable::ORIGIN,
            b'p' if matches!(
                name,
                b"proxy" | b"proxy-connection" | b"proxy-authorization" | b"proxy-authenticate"
            ) =>
            {
                return Notable::HOP;
            }
            b't' => match name {
                b"te" | b"transfer-encoding" => return Notable::HOP,
                b"traceparent" => return Notable::TRACE_PARENT,
                b"tracestate" => return Notable::TRACE_STATE,
                _ => Notable::default(),
            },
            b'u' if name == b"upgrade" => return Notable::HOP,
            b'x' if overrides_method(name) => return Notable::METHOD_OVERRIDE,
            _ => Notable::default(),
        };
        let underscore = if underscores && name.contains(&b'_') { Notable::UNDERSCORE } else { known };
        if claims_origin(name) { underscore.and(Notable::ORIGIN_CLAIM) } else { underscore }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of(names: &[&'static str]) -> Notable {
        let field = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("1"));
        Notable::of(&names.iter().map(field).collect())
    }

    #[test]
    fn ordinary_fields_are_nothing_of_note() {
        let names = [
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "cookie",
            "content-type",
            "authorization",
            "cache-control",
            "etag",
            "x-api-key",
            "transfer-encodings",
            "tea",
            "prox",
            "x-forwardedness",
        ];
        assert_eq!(of(&names), Notable::default());
    }

    #[test]
    fn each_kind_is_told() {
        for (names, kind) in [
            (&["connection"][..], Notable::CONNECTION),
            (
                &[
                    "keep-alive",
                    "proxy-connection",
                    "te",
                    "transfer-encoding",
                    "upgrade",
                    "proxy-authorization",
                    "proxy-authenticate",
                    "http2-settings",
                    "proxy",
                ],
                Notable::HOP,
            ),
            (&["expect"], Notable::EXPECT),
            (&["content-length"], Notable::CONTENT_LENGTH),
            (&["max-forwards"], Notable::MAX_FORWARDS),
            (&["x-http-method-override", "x-http-method", "x-method-override"], Notable::METHOD_OVERRIDE),
            (&["traceparent"], Notable::TRACE_PARENT),
            (&["tracestate"], Notable::TRACE_STATE),
            (&["origin"], Notable::ORIGIN),
            (&["x-forwarded-for", "forwarded", "x-real-ip", "client-ip"], Notable::ORIGIN_CLAIM),
            (&["x-http-method-override", "x-http-method", "x-method-override"], Notable::METHOD_OVERRIDE),
            (&["x_user", "a_b"], Notable::UNDERSCORE),
            (&["x_real_ip", "x-forwarded_for"], Notable::UNDERSCORE.and(Notable::ORIGIN_CLAIM)),
        ] {
            for name in names {
                assert_eq!(of(&["accept", name, "x-other"]), kind, "{name}");
            }
        }
    }
}
