//! The JSON of an announcement → [`Announcement`], or an error that names the member.
//!
//! Read by hand rather than derived: the messages are read by people who write clients, and a
//! duplicated member must be refused, not overwritten.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::instance::{Announcement, InvalidMember};

const MEMBERS: [&str; 8] =
    ["service_name", "host", "port", "weight", "zone", "version", "metadata", "service_metadata"];

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("unknown member {name:?}: {remedy}")]
    Unknown { name: String, remedy: String },
    #[error("\"{0}\" is missing")]
    Missing(&'static str),
    #[error("\"{member}\" must be {expected}, not {found}")]
    WrongType { member: &'static str, expected: &'static str, found: &'static str },
    #[error(transparent)]
    Invalid(#[from] InvalidMember),
}

pub fn announcement(body: &[u8]) -> Result<Announcement, BodyError> {
    let Members(mut members) = serde_json::from_slice(body)?;
    if let Some((name, _)) = members.iter().find(|(name, _)| !MEMBERS.contains(&name.as_str())) {
        return Err(unknown(name));
    }
    // `null` is how many clients write "not given".
    members.retain(|(_, value)| !value.is_null());
    let mut take = |member: &'static str| {
        let index = members.iter().position(|(name, _)| name == member)?;
        Some(members.swap_remove(index).1)
    };
    let mut need = |member| take(member).ok_or(BodyError::Missing(member));

    let service_name = text("service_name", need("service_name")?)?;
    let host = text("host", need("host")?)?;
    let port = whole("port", "a whole number from 1 to 65535", need("port")?)?;
    // Out of range becomes 0, which `Announcement` refuses in words.
    let port = u16::try_from(port).unwrap_or(0);
    let mut announcement = Announcement::new(&service_name, &host, port)?;
    if let Some(weight) = take("weight") {
        let weight = whole("weight", "a whole number from 1 to 1000", weight)?;
        announcement = announcement.with_weight(u32::try_from(weight).unwrap_or(u32::MAX))?;
    }
    if let Some(zone) = take("zone") {
        announcement = announcement.with_zone(&text("zone", zone)?)?;
    }
    if let Some(version) = take("version") {
        announcement = announcement.with_version(&text("version", version)?)?;
    }
    if let Some(metadata) = take("metadata") {
        announcement = announcement.with_metadata(&object("metadata", metadata)?)?;
    }
    if let Some(metadata) = take("service_metadata") {
        announcement = announcement.with_service_metadata(&object("service_metadata", metadata)?)?;
    }
    Ok(announcement)
}

fn text(member: &'static str, value: Value) -> Result<String, BodyError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(member, "text", &other)),
    }
}

fn whole(member: &'static str, expected: &'static str, value: Value) -> Result<u64, BodyError> {
    value.as_u64().ok_or_else(|| wrong_type(member, expected, &value))
}

fn object(member: &'static str, value: Value) -> Result<Map<String, Value>, BodyError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(wrong_type(member, "an object", &other)),
    }
}

fn wrong_type(member: &'static str, expected: &'static str, value: &Value) -> BodyError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a negative number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    BodyError::WrongType { member, expected, found }
}

fn unknown(name: &str) -> BodyError {
    // Only so much of a foreign name is worth repeating, or comparing.
    let name: String = name.chars().take(64).collect();
    let near = MEMBERS.iter().find(|member| strsim::damerau_levenshtein(member, &name) <= 2);
    let remedy = match near {
        Some(member) => format!("did you mean \"{member}\"?"),
        None => format!("known are {}", MEMBERS.join(", ")),
    };
    BodyError::Unknown { name, remedy }
}

/// The members of a JSON object, each at most once.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        let name: String = name.chars().take(64).collect();
                        return Err(A::Error::custom(format_args!("duplicate member {name:?}")));
                    }
                    if members.len() > MEMBERS.len() {
                        return Err(A::Error::custom("it has more members than there are names"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> String {
        announcement(body.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_whole_announcement_is_read_and_null_is_not_given() {
        let body = r#"{"service_name":"users","host":"::1","port":8001,"weight":2,"zone":"a","version":"1.2","metadata":{"v":[1]},"service_metadata":{"team":"x"}}"#;
        let taken = announcement(body.as_bytes()).expect("valid");
        assert_eq!(taken.to_json(), body);
        let short =
            r#"{"port":8001,"host":"a","service_name":"users","weight":null,"zone":null,"metadata":null}"#;
        let taken = announcement(short.as_bytes()).expect("valid").into_instance().0;
        assert_eq!((taken.weight, taken.zone, taken.metadata.text()), (1, None, "{}"));
    }

    #[test]
    fn errors_name_the_member_and_the_cure() {
        assert_eq!(error(r#"{"service_name":"users","host":"a"}"#), "\"port\" is missing");
        assert_eq!(
            error(r#"{"service_name":"users","host":"a","port":"8001"}"#),
            "\"port\" must be a whole number from 1 to 65535, not text"
        );
        assert_eq!(
            error(r#"{"service_name":"users","host":"a","port":65536}"#),
            "\"port\" must be from 1 to 65535"
        );
        assert_eq!(
            error(r#"{"service_name":"users","host":"a","port":1.5}"#).split(", ").last(),
            Some("not a fraction")
        );
        assert_eq!(
            error(r#"{"service":"users"}"#),
            "unknown member \"service\": known are service_name, host, port, weight, zone, version, \
             metadata, service_metadata"
        );
        assert_eq!(
            error(r#"{"service_name":"users","hots":"a"}"#),
            "unknown member \"hots\": did you mean \"host\"?"
        );
        assert_eq!(
            error(r#"{"host":"a","host":"b"}"#),
            "the body is not a JSON object: duplicate member \"host\" at line 1 column 18"
        );
        assert_eq!(error(r#"{"service_name":["users"]}"#), "\"service_name\" must be text, not a list");
        assert!(
            error("[]")
                .starts_with("the body is not a JSON object: invalid type: sequence, expected an object")
        );
        assert!(error("").starts_with("the body is not a JSON object: EOF"));
        assert!(error("{} {}").contains("trailing characters"));
        assert!(error(&"[".repeat(60_000)).starts_with("the body is not a JSON object"));
    }
}
