//! The known ways to get past a token check, over a socket.

use super::*;

/// The secret, and the public key of the issuer, which everyone can read.
fn guarded() -> Gateway {
    let keys =
        format!("keys: [{{ secret: \"{SECRET}\" }}, {{ public_key: {} }}]", vector("rsa.pub").display());
    Gateway::start(&(authenticator(&every_name(), &keys) + GUARDED))
}

async fn assert_refused(gateway: &Gateway, token: &str, codes: &[&str]) {
    let reply = with_token(gateway, token).await;
    assert_eq!(reply.status, 401, "{token}");
    assert!(codes.contains(&reply.code().as_str()), "{} for {token}", reply.code());
    assert!(!reply.text().contains("serde") && !reply.text().contains("base64::"), "{}", reply.text());
}

#[tokio::test]
async fn unsigned_tokens() {
    let gateway = guarded();
    for alg in ["none", "None", "NONE", "nOnE", "none ", " none", "\\u006eone", "", "null"] {
        let start =
            format!("{}.{}", encode(format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#)), encode(claims(json!({}))));
        for token in [format!("{start}."), start.clone(), format!("{start}.AAAA"), format!("{start}..")] {
            assert_refused(&gateway, &token, &["token_algorithm", "token_malformed"]).await;
        }
    }
    for header in
        [r#"{}"#, r#"{"alg":null}"#, r#"{"alg":[]}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":0}"#, "[]", "null"]
    {
        let token = forge(header, &claims(json!({})), Algorithm::HS256, &private_key(Algorithm::HS256));
        assert_refused(&gateway, &token, &["token_malformed"]).await;
    }
}

#[tokio::test]
async fn a_public_key_as_a_secret() {
    let gateway = guarded();
    let text = read("rsa.pub");
    let der = pem::parse(&text).expect("PEM").into_contents();
    for key in [&text[..], text.trim_ascii_end(), &der] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
            let token = forge(&header, &claims(json!({})), algorithm, &EncodingKey::from_secret(key));
            assert_refused(&gateway, &token, &["token_signature"]).await;
        }
    }
    for empty in [&b""[..], b"\0", b" "] {
        let token = forge(
            r#"{"alg":"HS256"}"#,
            &claims(json!({})),
            Algorithm::HS256,
            &EncodingKey::from_secret(empty),
        );
        assert_refused(&gateway, &token, &["token_signature"]).await;
    }
}

#[tokio::test]
async fn headers_that_bring_or_point_to_keys() {
    let bait = Origin::text("{\"keys\":[]}").await;
    let gateway = guarded();
    let key = private_key(Algorithm::HS256);
    for member in [
        format!(r#""jku":"{}/jwks.json""#, bait.url()),
        format!(r#""x5u":"{}/x.pem""#, bait.url()),
        r#""jwk":{"kty":"oct","k":"AAAA"}"#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""crit":["exp"],"exp":1"#.to_owned(),
        r#""crit":[]"#.to_owned(),
        r#""b64":false,"crit":["b64"]"#.to_owned(),
        r#""b64":false"#.to_owned(),
        r#""kid":7"#.to_owned(),
        r#""kid":null"#.to_owned(),
        format!(r#""kid":"{}""#, "k".repeat(600)),
        r#""alg":"none""#.to_owned(),
        r#""kid":"a","kid":"b""#.to_owned(),
    ] {
        // Signed with the right secret: only the header is wrong.
        let token =
            forge(&format!(r#"{{"alg":"HS256",{member}}}"#), &claims(json!({})), Algorithm::HS256, &key);
        assert_refused(&gateway, &token, &["token_malformed"]).await;
    }
    for kid in
        ["../../../../dev/null", "/etc/hostname", "' UNION SELECT 'x", "x;id", "%00", "http://127.0.0.1/"]
    {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let forged = forge(&header, &claims(json!({})), Algorithm::HS256, &EncodingKey::from_secret(b""));
        assert_refused(&gateway, &forged, &["token_signature"]).await;
    }
    assert_eq!(bait.count(), 0, "nothing that a token names is fetched");
}

#[tokio::test]
async fn claims_of_two_meanings() {
    let gateway = guarded();
    let key = private_key(Algorithm::HS256);
    let exp = now() + 600;
    for claims in [
        format!(r#"{{"iss":"joe","aud":"shop","sub":"u1","sub":"admin","exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":1,"exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":{exp},"a":{{"b":1,"b":2}}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":{exp},"\u0073ub":"a","sub":"b"}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":"{exp}"}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":[{exp}]}}"#),
        r#"{"iss":"joe","aud":"shop","exp":-1}"#.to_owned(),
        r#"{"iss":"joe","aud":"shop","exp":1e400}"#.to_owned(),
        r#"{"iss":"joe","aud":"shop","exp":null}"#.to_owned(),
        r#"{"iss":"joe","aud":"shop","exp":true}"#.to_owned(),
        format!(r#"{{"iss":["joe"],"aud":"shop","exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":{{"shop":1}},"exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":["shop",1],"exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","sub":1,"exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","nbf":"0","exp":{exp}}}"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":{exp}}}x"#),
        format!(r#"[{{"iss":"joe","aud":"shop","exp":{exp}}}]"#),
        format!(r#"{{"iss":"joe","aud":"shop","exp":{exp},"d":{}{}}}"#, "[".repeat(100), "]".repeat(100)),
        "null".to_owned(),
        String::new(),
    ] {
        let token = forge(r#"{"alg":"HS256"}"#, &claims, Algorithm::HS256, &key);
        assert_refused(&gateway, &token, &["token_malformed"]).await;
    }
}

#[tokio::test]
async fn tokens_of_a_wrong_form() {
    let gateway = guarded();
    let good = hs256(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    for token in [
        format!("{good}."),
        format!("{good}.x"),
        format!(".{good}"),
        format!("{header}.{claims}"),
        format!(".{claims}.{signature}"),
        format!("{header}.{claims}."),
        format!("{good}="),
        format!("{header}==.{claims}.{signature}"),
        format!("{header}.{claims}.{signature}+/"),
        format!("{header}.{claims}.{}", signature.replace(['-', '_'], "%")) + "%",
        "..".to_owned(),
        "...".to_owned(),
        ".".to_owned(),
        format!("{header}.{claims}.{}", "A".repeat(20_000)),
        "A".repeat(20_000),
    ] {
        assert_refused(&gateway, &token, &["token_malformed"]).await;
    }
    assert_refused(&gateway, &format!("{header}..{signature}"), &["token_signature"]).await;
    // Another spelling of the same bytes in the last character of the signature.
    let last = signature.chars().last().expect("it is not empty");
    let twin = char::from(last as u8 + 1);
    assert_refused(
        &gateway,
        &format!("{header}.{claims}.{}{twin}", &signature[..signature.len() - 1]),
        &["token_malformed", "token_signature"],
    )
    .await;
    let huge = Client::new(gateway.http())
        .bearer(&"A".repeat(60_000))
        .try_send(Method::GET, "/", Bytes::new())
        .await;
    assert!(huge.is_err() || huge.is_ok_and(|reply| reply.status == 431), "beyond max_header_bytes");
    assert_eq!(with_token(&gateway, &good).await.status, 200, "all the others have done no harm");
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_service() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "{}services: {{ users: {{ instances: [\"{}\"] }} }}\n\
         routes: [{{ name: in, match: {{ prefix: / }}, authenticate: {{ with: [shop] }}, forward: {{ service: users }} }}]\n",
        secret_authenticator(),
        origin.url()
    ));
    for method in
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::from_bytes(b"BREW").unwrap()]
    {
        for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
            let client =
                client.header("origin", "https://a.example").header("access-control-request-method", "GET");
            assert_eq!(client.send(method.clone(), "/", Bytes::new()).await.status, 401, "{method}");
        }
    }
    assert_eq!(origin.count(), 0);
}
