//! What is said to etcd v3 and what it says, in the JSON of its HTTP gateway: numbers of 64 bits as text,
//! keys and values in base64, and nothing at all where a value is zero.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::discovery::entry::{self, EntryError};
use crate::discovery::remote::RemoteError;
use crate::discovery::target::Target;

/// A key, and the instance that its value is.
pub type Entry = (Vec<u8>, Result<Target, EntryError>);

/// Every key below the prefix, at one revision.
pub struct Listed {
    pub at: At,
    pub entries: Vec<Entry>,
    /// How many there are, some of which may be beyond the limit of `entries`.
    pub count: u64,
}

/// Which store it was, and how far it had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub cluster: u64,
    pub revision: u64,
}

/// One line of a watch.
pub enum News {
    Created(At),
    Changed {
        revision: u64,
        changes: Vec<Change>,
    },
    /// What was asked for is no longer kept.
    Compacted,
}

pub enum Change {
    Put(Entry),
    Delete(Vec<u8>),
}

pub fn range(prefix: &str, limit: usize) -> Value {
    let mut question = below(prefix);
    question["limit"] = limit.to_string().into();
    question
}

pub fn count(prefix: &str) -> Value {
    let mut question = below(prefix);
    question["count_only"] = true.into();
    question
}

pub fn watch(prefix: &str, from_revision: u64) -> Value {
    let mut question = below(prefix);
    question["start_revision"] = from_revision.to_string().into();
    json!({ "create_request": question })
}

/// All keys that begin with the prefix.
fn below(prefix: &str) -> Value {
    json!({ "key": BASE64.encode(prefix), "range_end": BASE64.encode(end(prefix.as_bytes())) })
}

/// The first key behind all those that begin with the prefix. One zero byte stands for "no end".
fn end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

pub fn listed(answer: &[u8]) -> Result<Listed, RemoteError> {
    let answer: Range = parsed(answer)?;
    let entries = answer.kvs.iter().map(KeyValue::entry).collect::<Result<_, _>>()?;
    Ok(Listed { at: answer.header.at()?, entries, count: answer.count })
}

pub fn token(answer: &[u8]) -> Result<String, RemoteError> {
    parsed::<Authenticated>(answer).map(|answer| answer.token)
}

pub fn news(line: &[u8]) -> Result<News, RemoteError> {
    let line: Line = parsed(line)?;
    let answer = match (line.result, line.error) {
        (Some(answer), None) => answer,
        (_, Some(failure)) => return Err(RemoteError::Cancelled(super::printable(&failure.message))),
        (None, None) => return Err(unreadable("a line has neither a result nor an error")),
    };
    if answer.compact_revision > 0 {
        return Ok(News::Compacted);
    }
    if answer.canceled {
        return Err(RemoteError::Cancelled(super::printable(&answer.cancel_reason)));
    }
    let at = answer.header.at()?;
    if answer.created {
        return Ok(News::Created(at));
    }
    let changes = answer.events.iter().map(Event::change).collect::<Result<_, _>>()?;
    Ok(News::Changed { revision: at.revision, changes })
}

fn parsed<T: DeserializeOwned>(answer: &[u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(answer).map_err(unreadable)
}

fn unreadable(what: impl ToString) -> RemoteError {
    RemoteError::Unreadable(super::printable(&what.to_string()))
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
    #[serde(default, deserialize_with = "number")]
    count: u64,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    cluster_id: u64,
    #[serde(default, deserialize_with = "number")]
    revision: u64,
}

impl Header {
    /// A store begins with revision 1.
    fn at(&self) -> Result<At, RemoteError> {
        match self.revision {
            0 => Err(unreadable("it has no revision")),
            revision => Ok(At { cluster: self.cluster_id, revision }),
        }
    }
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
}

impl KeyValue {
    fn entry(&self) -> Result<Entry, RemoteError> {
        let value = BASE64.decode(&self.value).map_err(|_| unreadable("a value is not base64"))?;
        Ok((self.key()?, entry::target(&value)))
    }

    fn key(&self) -> Result<Vec<u8>, RemoteError> {
        BASE64.decode(&self.key).map_err(|_| unreadable("a key is not base64"))
    }
}

#[derive(Deserialize)]
struct Line {
    result: Option<Answer>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Answer {
    header: Header,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    compact_revision: u64,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    kv: KeyValue,
}

impl Event {
    fn change(&self) -> Result<Change, RemoteError> {
        match self.kind.as_str() {
            "" | "PUT" => self.kv.entry().map(Change::Put),
            "DELETE" => self.kv.key().map(Change::Delete),
            other => Err(unreadable(format!("an event is of the kind {other:?}"))),
        }
    }
}

#[derive(Deserialize)]
struct Authenticated {
    token: String,
}

/// A number, or one written as text, as JSON's own numbers don't reach 64 bits everywhere.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<'a> {
        Number(u64),
        Text(std::borrow::Cow<'a, str>),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(|_| D::Error::custom("a number is not one")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn fault<T>(outcome: Result<T, RemoteError>) -> String {
        outcome.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(end(b"/services/orders/"), b"/services/orders0");
        assert_eq!(end(b"a\xff\xff"), b"b");
        assert_eq!(end(b"\xff"), [0]);
    }

    #[test]
    fn a_range_is_read_as_etcd_writes_it() {
        let listed = listed(
            br#"{"header":{"cluster_id":"324952591200643719","member_id":"3","revision":"2","raft_term":"2"},
                "kvs":[{"key":"L2E=","create_revision":"2","mod_revision":"2","version":"1","value":"MTI3LjAuMC4xOjE="},
                       {"key":"L2I=","value":"bm8="}, {"key":"L2M="}],"more":true,"count":"7"}"#,
        )
        .expect("good");
        assert_eq!(listed.at, At { cluster: 324_952_591_200_643_719, revision: 2 });
        assert_eq!(listed.count, 7);
        assert_eq!(listed.entries[0].0, b"/a");
        assert_eq!(listed.entries[0].1.as_ref().map(|target| &*target.authority), Ok("127.0.0.1:1"));
        assert_eq!(listed.entries[1].1, Err(EntryError::Address));
        assert_eq!(listed.entries[2].1, Err(EntryError::Empty));
    }

    #[test]
    fn a_watch_is_read_as_etcd_writes_it() {
        let created = news(br#"{"result":{"header":{"cluster_id":"3","revision":"2"},"created":true}}"#);
        assert!(matches!(created, Ok(News::Created(At { cluster: 3, revision: 2 }))));
        let changed = news(
            br#"{"result":{"header":{"revision":"4"},"events":[{"kv":{"key":"L2E=","value":"MTI3LjAuMC4xOjE="}},{"type":"DELETE","kv":{"key":"L2I="}}]}}"#,
        );
        let Ok(News::Changed { revision: 4, changes }) = changed else { panic!("not a change") };
        assert!(
            matches!(&changes[..], [Change::Put((a, Ok(_))), Change::Delete(b)] if a == b"/a" && b == b"/b")
        );
        let compacted =
            news(br#"{"result":{"header":{"cluster_id":"3"},"canceled":true,"compact_revision":"4"}}"#);
        assert!(matches!(compacted, Ok(News::Compacted)));
        let refused = br#"{"result":{"header":{"revision":"4"},"created":true,"canceled":true,"cancel_reason":"permission\ndenied"}}"#;
        assert_eq!(fault(news(refused)), "it cancelled the watch: permission denied");
        let failed = br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"x"}}"#;
        assert_eq!(fault(news(failed)), "it cancelled the watch: etcdserver: no leader");
    }

    proptest! {
        /// Whatever is cut off or changed in an answer, it is read or refused.
        #[test]
        fn no_answer_is_too_much(cut in 0usize..300, at in 0usize..300, byte: u8, any in vec(any::<u8>(), 0..200)) {
            let whole = br#"{"result":{"header":{"cluster_id":"1","revision":"4"},"compact_revision":0,"events":[{"kv":{"key":"L2E=","value":"MTI3LjAuMC4xOjE="}},{"type":"DELETE","kv":{"key":"L2I="}}]}}"#;
            let mut changed = whole.to_vec();
            changed[at % whole.len()] = byte;
            for answer in [&whole[..cut.min(whole.len())], &changed, &any] {
                let _ = news(answer);
                let _ = listed(answer);
                let _ = token(answer);
                let _ = entry::target(answer);
            }
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for answer in
            ["", "{}", "[]", "null", "<html>", "{\"header\":{}}", "{\"header\":{\"revision\":\"x\"}}"]
        {
            assert!(listed(answer.as_bytes()).is_err(), "{answer}");
            assert!(news(answer.as_bytes()).is_err(), "{answer}");
        }
        let header = r#""header":{"revision":"2"}"#;
        assert!(listed(format!(r#"{{{header},"kvs":[{{"key":"*"}}]}}"#).as_bytes()).is_err());
        assert!(listed(format!(r#"{{{header},"kvs":[{{"key":"YQ==","value":"*"}}]}}"#).as_bytes()).is_err());
        assert!(
            news(
                format!(r#"{{"result":{{{header},"events":[{{"type":"?","kv":{{"key":"YQ=="}}}}]}}}}"#)
                    .as_bytes()
            )
            .is_err()
        );
        assert!(token(b"{}").is_err());
    }
}
