//! Requests that no well-behaved client sends, one test for each class of attack and named after it. Each is answered
//! with a reason where an answer is possible, its connection ends, and nothing of it reaches a service. What does reach
//! the service was rebuilt: an instance that takes every byte at its word reads what the gateway has decided on.
//!
//! Beside them stand requests and responses that are unusual and right: none of them is refused.

mod agreement;
mod chunks;
mod conformance;
mod fields;
mod forged;
mod framing;
mod http2;
mod lines;
mod responses;
mod targets;
mod valid;

use crate::support::recorder::Recorded;
use crate::support::{Gateway, Recorder, raw};

const LIMITS: &str = "listeners: [{ name: http, bind: \"127.0.0.1:0\", \
     limits: { max_header_bytes: 8KiB, max_headers: 20, max_uri_bytes: 1KiB } }]\n";

struct Place {
    origin: Recorder,
    gateway: Gateway,
}

/// Everything goes to one service; `/private` takes tokens, whose subject is told as `x-user-id`.
async fn place() -> Place {
    let origin = Recorder::start().await;
    let gateway = Gateway::start(&format!(
        "{LIMITS}services: {{ s: {{ instances: [\"{}\"] }} }}\n\
         authenticators:\n  j:\n    jwt:\n      algorithms: [HS256]\n      \
         keys: [{{ secret: \"0123456789012345678901234567890123\" }}]\n      \
         claim_headers: {{ sub: x-user-id, scope: x-scopes }}\n\
         routes:\n\
         - {{ name: private, match: {{ prefix: /private }}, authenticate: {{ with: [j] }}, forward: {{ service: s }} }}\n\
         - {{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}\n\
         defaults: {{ response_headers: {{ set: {{ x-content-type-options: nosniff }} }} }}\n",
        origin.url()
    ));
    Place { origin, gateway }
}

impl Place {
    /// Sends the bytes; they must be answered with this status and code, and the connection closed.
    async fn refuses(&self, bytes: &[u8], status: u16, code: &str) {
        let before = self.origin.count();
        let told = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let answer = raw::exchange(self.gateway.http(), bytes).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{told:?} → {answer:?}"));
        let is_refused = ["HTTP/1.1", "HTTP/1.0"].iter().any(|v| head.starts_with(&format!("{v} {status} ")));
        assert!(is_refused, "{told:?} → {answer}");
        let head = head.to_lowercase();
        for field in [
            "content-type: application/problem+json",
            "connection: close",
            "x-content-type-options: nosniff",
            &format!("content-length: {}", body.len()),
        ] {
            assert!(head.lines().any(|line| line == field), "{told:?} → no {field:?} in {answer}");
        }
        let problem: serde_json::Value =
            serde_json::from_str(body).expect("one JSON document and nothing more");
        assert_eq!(problem["code"], code, "{told:?}");
        let id = problem["request_id"].as_str().expect("it is identified");
        assert!(head.contains(&format!("x-request-id: {id}")), "{answer}");
        let entry = self.gateway.log_entry(|entry| entry["request_id"] == id);
        assert_eq!((&entry["status"], &entry["reason"]), (&status.into(), &code.into()), "{told:?}");
        assert_eq!(self.origin.count(), before, "{told:?} was forwarded");
    }

    async fn refuses_all(&self, heads: &[&str], code: &str) {
        for head in heads {
            self.refuses(head.as_bytes(), 400, code).await;
        }
    }

    /// A GET with these field lines behind its Host is refused.
    async fn refuses_fields(&self, fields: &[&str], code: &str) {
        for field in fields {
            self.refuses(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes(), 400, code).await;
        }
    }

    /// Sends one request that ends with its connection; what the service got of it.
    async fn passes(&self, bytes: impl AsRef<[u8]>) -> Recorded {
        let before = self.origin.count();
        let told = String::from_utf8_lossy(bytes.as_ref()).into_owned();
        let answer = raw::exchange(self.gateway.http(), bytes).await;
        let is_served =
            answer.starts_with("HTTP/1.1 200 OK\r\n") || answer.starts_with("HTTP/1.0 200 OK\r\n");
        assert!(is_served, "{told:?} → {answer}");
        assert_eq!(self.origin.count(), before + 1, "{told:?} became {:#?}", self.origin.requests());
        self.origin.last()
    }

    /// The same for a GET of `/ok` with these field lines.
    async fn passes_with(&self, fields: &str) -> Recorded {
        self.passes(format!("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")).await
    }
}
