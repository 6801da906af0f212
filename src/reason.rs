//! Why the gateway answered by itself: one stable code per cause, the same string in the response,
//! the access log and the metrics. Only this file chooses the status of such a reply.

use http::StatusCode;

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])* $name:ident = $code:literal, $status:literal, $title:literal, $proxy:expr; )*) => {
        /// Why the gateway answered by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[doc = $doc])* $name, )* }

        impl Reason {
            /// Every reason, for metrics and documentation.
            pub const ALL: &'static [Reason] = &[ $( Reason::$name, )* ];

            /// The stable code: in `code` of the problem document, the log and the metric.
            pub const fn code(self) -> &'static str {
                match self { $( Reason::$name => $code, )* }
            }

            const fn status_code(self) -> u16 {
                match self { $( Reason::$name => $status, )* }
            }

            /// The `title` of the problem document (RFC 9457 §3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $( Reason::$name => $title, )* }
            }

            /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3).
            pub const fn proxy_error(self) -> Option<&'static str> {
                match self { $( Reason::$name => $proxy, )* }
            }

            /// One sentence for documentation.
            pub const fn description(self) -> &'static str {
                match self { $( Reason::$name => concat!($($doc),*).trim_ascii(), )* }
            }
        }
    };
}

reasons! {
    /// In place of an error the last good answer was given, as `stale_if_error` allows. The cause is in `Proxy-Status`.
    StaleIfError = "stale_if_error", 200, "The last good answer", None;
    /// The request is not well-formed HTTP.
    InvalidRequest = "invalid_request", 400, "Bad request", Some("http_request_error");
    /// The path has an encoded slash, a backslash, a NUL or a broken percent escape.
    InvalidPath = "invalid_path", 400, "Bad path", Some("http_request_error");
    /// The Host is missing, repeated, malformed, or differs from the one in the request target.
    InvalidHost = "invalid_host", 400, "Bad host", Some("http_request_error");
    /// The request asks to be taken for another method than POST, and the route does not allow that one.
    MethodOverrideRefused = "method_override_refused", 400, "Method override not allowed", Some("http_request_denied");
    /// The body of a batch is no JSON, or not the list of requests that it has to be, or has too many of them.
    InvalidBatch = "invalid_batch", 400, "Bad batch", Some("http_request_error");
    /// An item of a batch is not one that can be sent: its method, path, body or one of its header fields is no such thing, or one that an item may not say.
    BatchItemInvalid = "batch_item_invalid", 400, "Bad item of a batch", Some("http_request_error");
    /// An item of a batch waits for one that there is not.
    BatchUnknownItem = "batch_unknown_item", 400, "No such item in the batch", Some("http_request_error");
    /// An item of a batch waits for itself, mostly by way of others.
    BatchCycle = "batch_cycle", 400, "Items of the batch wait for each other", Some("http_request_error");
    /// An item of a batch is a batch itself.
    BatchNested = "batch_nested", 400, "A batch within a batch", Some("http_request_denied");
    /// Neither a bearer token nor any other place that the route takes tokens from had one.
    TokenMissing = "token_missing", 401, "Authentication required", Some("http_request_denied");
    /// The token is not three base64url parts with a JSON header and JSON claims of the right types.
    TokenMalformed = "token_malformed", 401, "Malformed token", Some("http_request_denied");
    /// The token's `exp` has passed.
    TokenExpired = "token_expired", 401, "Token expired", Some("http_request_denied");
    /// The token's `nbf` has not come yet.
    TokenNotYetValid = "token_not_yet_valid", 401, "Token not yet valid", Some("http_request_denied");
    /// The token's `iss` is not the one that the authenticator names.
    TokenIssuer = "token_issuer", 401, "Wrong token issuer", Some("http_request_denied");
    /// The token's `aud` has none of the audiences that the authenticator names.
    TokenAudience = "token_audience", 401, "Wrong token audience", Some("http_request_denied");
    /// The token's algorithm is not allowed, or does not fit the type of the key.
    TokenAlgorithm = "token_algorithm", 401, "Token algorithm not allowed", Some("http_request_denied");
    /// The token's signature does not verify.
    TokenSignature = "token_signature", 401, "Bad token signature", Some("http_request_denied");
    /// No key with the token's `kid` is known.
    TokenKeyUnknown = "token_key_unknown", 401, "Unknown token key", Some("http_request_denied");
    /// The route takes a client's certificate only, and the client showed none.
    CertificateMissing = "certificate_missing", 403, "Client certificate required", Some("http_request_denied");
    /// The client's certificate is good, but no name in it is one that the route's authenticators allow.
    CertificateDenied = "certificate_denied", 403, "Client certificate not allowed", Some("http_request_denied");
    /// The token is valid, but a claim that the route asks for is absent or has another value.
    NotAuthorized = "not_authorized", 403, "Not allowed", Some("http_request_denied");
    /// A page of another origin asks through a batch for what its browser would not let it have by itself.
    BatchOriginDenied = "batch_origin_denied", 403, "Not allowed for pages of this origin", Some("http_request_denied");
    /// The client's address is not one that may call.
    IpDenied = "ip_denied", 403, "Address not allowed", Some("http_request_denied");
    /// No route matches the host and path, or one of its header or query conditions fails.
    RouteNotFound = "route_not_found", 404, "No such route", Some("destination_not_found");
    /// A required part of an aggregate was answered with 404.
    PartNotFound = "part_not_found", 404, "No such resource", Some("http_response_incomplete");
    /// A route matches, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed", Some("http_request_denied");
    /// The client did not finish its request in time.
    RequestTimeout = "request_timeout", 408, "Request timeout", Some("http_request_error");
    /// The request body is larger than `max_body`.
    BodyTooLarge = "body_too_large", 413, "Request body too large", Some("http_request_denied");
    /// The request target is longer than `max_uri_bytes`.
    UriTooLong = "uri_too_long", 414, "Request target too long", Some("http_request_denied");
    /// The Content-Type of a batch is not that of JSON, or its body is encoded.
    BatchMediaType = "batch_media_type", 415, "A batch is JSON", Some("http_request_error");
    /// The request's `Expect` asks for something else than `100-continue`.
    ExpectationFailed = "expectation_failed", 417, "Expectation failed", Some("http_request_error");
    /// An item of a batch was not sent, because one that it waits for has failed.
    BatchDependencyFailed = "batch_dependency_failed", 424, "An earlier item failed", Some("http_request_denied");
    /// An item of a batch was not sent, because a value of another's answer isn't there, or can't stand where it should.
    BatchMissingValue = "batch_missing_value", 424, "An earlier item lacks a value", Some("http_request_denied");
    /// A rate limit's tokens are used up.
    RateLimited = "rate_limited", 429, "Too many requests", Some("http_request_denied");
    /// The request head is larger than `max_header_bytes` or has more than `max_headers` fields.
    HeadersTooLarge = "headers_too_large", 431, "Request headers too large", Some("http_request_denied");
    /// The client went away before its response was complete; never sent, only logged and counted.
    ClientGone = "client_gone", 499, "Client closed the connection", None;
    /// The gateway failed at something that no input should cause.
    Internal = "internal", 500, "Internal error", Some("proxy_internal_error");
    /// No connection to an instance could be made.
    ConnectFailure = "connect_failure", 502, "Service unreachable", Some("connection_refused");
    /// TLS could not be agreed on with an instance. Why is in the log and in `/api/services`.
    TlsFailure = "tls_failure", 502, "No secure connection to the service", Some("tls_protocol_error");
    /// The instance closed the connection before a response was complete.
    UpstreamReset = "upstream_reset", 502, "Service closed the connection", Some("connection_terminated");
    /// The instance's response is not well-formed HTTP.
    InvalidResponse = "invalid_response", 502, "Unusable response", Some("http_protocol_error");
    /// A part of an aggregate was answered with a status that is no success.
    PartFailed = "part_failed", 502, "A required part failed", Some("http_response_incomplete");
    /// A part of an aggregate was answered with something that is not JSON.
    PartNotJson = "part_not_json", 502, "A required part is not JSON", Some("http_response_incomplete");
    /// A part of an aggregate was answered with something that is not text in UTF-8.
    PartNotText = "part_not_text", 502, "A required part is not text", Some("http_response_incomplete");
    /// A part of an aggregate is larger than its `max_body`.
    PartTooLarge = "part_too_large", 502, "A required part is too large", Some("http_response_body_size");
    /// A part of an aggregate needs a value of another part or a claim that isn't there, or that can't stand where it should.
    PartMissingValue = "part_missing_value", 502, "A required part lacks a value", Some("http_response_incomplete");
    /// A part of an aggregate is not of the shape that `select`, `merge`, `append` or `for_each` asks for.
    PartWrongShape = "part_wrong_shape", 502, "A required part has the wrong shape", Some("http_response_incomplete");
    /// A part of an aggregate would be asked for more elements than `max_items` allows.
    PartTooManyItems = "part_too_many_items", 502, "A required part has too many items", Some("http_response_incomplete");
    /// The answer to an item of a batch is larger than `max_answer`, or with those before it than `max_answers`.
    BatchAnswerTooLarge = "batch_answer_too_large", 502, "The answer is too large", Some("http_response_body_size");
    /// The route is in maintenance.
    Maintenance = "maintenance", 503, "In maintenance", Some("destination_unavailable");
    /// The service has no instance in rotation.
    NoInstance = "no_instance", 503, "No instance available", Some("destination_unavailable");
    /// The breakers of all the service's instances are open.
    CircuitOpen = "circuit_open", 503, "Circuit open", Some("destination_unavailable");
    /// As many requests as `concurrency.max` allows are at the service, and as many as `concurrency.queue` wait.
    ConcurrencyLimit = "concurrency_limit", 503, "Service at its limit", Some("connection_limit_reached");
    /// The request waited as long as `concurrency.queue_timeout` allows, and the service was at its limit still.
    QueueTimeout = "queue_timeout", 503, "Service at its limit for too long", Some("connection_limit_reached");
    /// All connections to the instances were in use for as long as `timeouts.connect` allows.
    PoolExhausted = "pool_exhausted", 503, "All connections in use", Some("connection_limit_reached");
    /// The keys to check tokens with have not been fetched yet.
    KeysUnavailable = "keys_unavailable", 503, "Token keys unavailable", Some("proxy_internal_error");
    /// The process uses as much memory as `max_memory` allows.
    OutOfMemory = "out_of_memory", 503, "Overloaded", Some("proxy_internal_error");
    /// Connecting to an instance took longer than `timeouts.connect`.
    ConnectTimeout = "connect_timeout", 504, "Service unreachable in time", Some("connection_timeout");
    /// The TLS handshake with an instance took longer than `timeouts.tls`.
    TlsTimeout = "tls_timeout", 504, "No secure connection to the service in time", Some("connection_timeout");
    /// The response's head took longer than `timeouts.response`.
    ResponseTimeout = "response_timeout", 504, "Service too slow", Some("http_response_timeout");
    /// The response's body paused longer than `timeouts.idle`.
    IdleTimeout = "idle_timeout", 504, "Service stopped in its answer", Some("http_response_timeout");
    /// The call, with its attempts and the body of the response, took longer than `timeouts.total`.
    TotalTimeout = "total_timeout", 504, "Not done in time", Some("http_response_timeout");
    /// A required part of an aggregate was not complete within its `timeout`.
    PartTimeout = "part_timeout", 504, "A required part was too slow", Some("http_response_timeout");
    /// An item of a batch was not complete within the batch's `timeout`.
    BatchTimeout = "batch_timeout", 504, "The batch took too long", Some("http_response_timeout");
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// As the error of a response's body, it tells the connection that the response broke off.
impl std::error::Error for Reason {}

impl Reason {
    /// The status of a reply with this reason.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_code()).expect("the table above holds statuses from 200 to 504")
    }

    /// A small number for counters indexed by reason; below `Reason::ALL.len()`.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_distinct_and_every_index_points_at_its_own() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert!(reason.status().as_u16() >= 400 || *reason == Reason::StaleIfError);
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
