//! What a client says about who it is and where it comes from (RFC 7239 §8, RFC 9110 §17.1).

use super::place;

/// Each is gone, or has the value that the gateway gave it.
#[tokio::test]
async fn forged_origins_are_dropped() {
    let place = place().await;
    for name in [
        "Forwarded",
        "X-Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
        "X-Forwarded-Scheme",
        "X-Forwarded-Ssl",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Uri",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "Forwarded-For",
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
        "True-Client-IP",
        "X-Cluster-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Envoy-External-Address",
        "X-Original-URL",
        "X-Original-Host",
        "X-Original-Forwarded-For",
        "X-Rewrite-URL",
        "X-Scheme",
        "X-URL-Scheme",
        "Front-End-Https",
    ] {
        for value in ["6.6.6.6", "evil", "for=6.6.6.6;host=evil"] {
            let seen = place.passes_with(&format!("{name}: {value}\r\n{name}: {value}\r\n")).await;
            assert!(!seen.head.contains("6.6.6.6") && !seen.head.contains("evil"), "{}", seen.head);
        }
    }
}

/// On every route, also where nobody authenticates.
#[tokio::test]
async fn forged_identity_is_dropped() {
    let place = place().await;
    for name in ["x-user-id", "X-User-Id", "X-USER-ID", "x-scopes", "X-Scopes"] {
        let seen = place.passes_with(&format!("{name}: root\r\nX: 1\r\n{name}: admin\r\n")).await;
        assert!(
            !seen.head.contains("root") && !seen.head.contains("admin") && seen.has("x"),
            "{}",
            seen.head
        );
    }
}

#[tokio::test]
async fn a_token_does_not_let_a_client_add_to_what_it_says() {
    let place = place().await;
    let secret = b"0123456789012345678901234567890123";
    let claims = serde_json::json!({ "sub": "u1", "exp": 4_000_000_000_u64 });
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    let token =
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("it can be signed");
    let request = |fields: &str| {
        format!(
            "GET /private HTTP/1.1\r\nHost: a\r\nConnection: close{fields}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    for fields in [
        "",
        "\r\nX-User-Id: root",
        "\r\nX_User_Id: root",
        "\r\nX-Scopes: root",
        "\r\nConnection: X-User-Id",
        ", x-user-id, x-scopes\r\nx-user-id: root",
    ] {
        let seen = place.passes(request(fields)).await;
        assert_eq!(seen.all("x-user-id"), ["u1"], "{fields:?} in {}", seen.head);
        assert!(!seen.head.contains("root") && !seen.has("x-scopes"), "{}", seen.head);
    }
}
