//! Services that lie, vanish, or answer with what is to hurt: their part fails or is what they said, and nothing else happens.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use super::{gateway, without_times};
use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Origin, origin};

const NO_RETRIES: &str =
    "retries: { attempts: 0 }, circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";

#[tokio::test]
async fn what_is_no_json_to_the_letter_is_none() {
    const BROKEN: [&[u8]; 24] = [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{a:1}",
        b"{'a':1}",
        b"[1 2]",
        b"{} {}",
        b"[]]",
        b"01",
        b"1.",
        b".5",
        b"-",
        b"+1",
        b"1e",
        b"NaN",
        b"tru",
        b"\"\x01\"",
        b"\"\\x\"",
        b"\"\\u12\"",
        b"{\"\xc3\x28\":1}",
        b"\xef\xbb\xbf{}",
    ];
    const WHOLE: [&str; 8] = [
        "-0.0E+00",
        "\"\\ud800\"",
        "{\"\":{\"\":[]}}",
        "[[],[[]],{}]",
        "1e999999999",
        "\"\\u0000\"",
        "null",
        "{ \"a\" :\t1 ,\r\n\"a\":\"\u{2028}\u{10ffff}\" }",
    ];
    let origin = Origin::start(|seen| {
        let number: usize = seen.target[1..].parse().expect("it is a number");
        let body = BROKEN.get(number).copied().unwrap_or_else(|| WHOLE[number - BROKEN.len()].as_bytes());
        Response::new(Full::from(body))
    })
    .await;
    let (mut parts, mut wanted, mut errors) = (String::new(), String::new(), String::new());
    for number in 0..BROKEN.len() + WHOLE.len() {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(parts, "{comma} p{number}: {{ service: parts, path: /{number} }}");
        let value = if number < BROKEN.len() { "null" } else { WHOLE[number - BROKEN.len()] };
        let _ = write!(wanted, "{comma}\"p{number}\":{value}");
        if number < BROKEN.len() {
            let _ = write!(
                errors,
                "{comma}{{\"part\":\"p{number}\",\"reason\":\"part_not_json\",\"status\":502}}"
            );
        }
    }
    let gateway = gateway(&origin.url(), NO_RETRIES, "20s", &parts);
    let reply = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(without_times(&reply), format!("{{{wanted},\"_errors\":[{errors}]}}"));
}

#[tokio::test]
async fn each_way_of_vanishing_has_its_reason() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let origin = RawOrigin::start(|mut stream, _| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let answer = match head.split(' ').nth(1).unwrap_or_default() {
            "/nothing" => String::new(),
            "/half-a-head" => "HTTP/1.1 200 O".to_owned(),
            "/no-http" => "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
            "/short" => format!("{HEAD}content-length: 50\r\n\r\n{{\"a\":1}}"),
            "/none" => format!("{HEAD}content-length: 50\r\n\r\n"),
            "/chunk" => format!("{HEAD}transfer-encoding: chunked\r\n\r\n7\r\n{{\"a\":1}}\r\n"),
            "/bad-chunk" => format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n{{\"a\":1}}\r\n0\r\n\r\n"),
            "/two-lengths" => format!("{HEAD}content-length: 7\r\ncontent-length: 8\r\n\r\n{{\"a\":1}}"),
            // Its end is all that tells that it is whole, and it isn't.
            "/until-close" => format!("{HEAD}\r\n{{\"a\":"),
            "/whole-until-close" => format!("{HEAD}\r\n{{\"a\":1}}"),
            "/endless-head" => format!("{HEAD}x: {}\r\n\r\n", "y".repeat(2 << 20)),
            _ => format!("{HEAD}content-length: 7\r\n\r\n{{\"a\":1}}"),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let failing = [
        ("nothing", "upstream_reset"),
        ("half-a-head", "upstream_reset"),
        ("no-http", "invalid_response"),
        ("short", "upstream_reset"),
        ("none", "upstream_reset"),
        ("chunk", "upstream_reset"),
        ("bad-chunk", "invalid_response"),
        ("two-lengths", "invalid_response"),
        ("until-close", "part_not_json"),
        ("endless-head", "invalid_response"),
    ];
    let names = failing.iter().map(|(name, _)| *name).chain(["whole-until-close", "well"]);
    let parts: Vec<String> =
        names.map(|name| format!("{name}: {{ service: parts, path: /{name} }}")).collect();
    let gateway = gateway(&origin.url(), NO_RETRIES, "20s", &parts.join(", "));
    let (mut wanted, mut errors) = (String::new(), Vec::new());
    for (name, reason) in failing {
        let _ = write!(wanted, "\"{name}\":null,");
        errors.push(format!("{{\"part\":\"{name}\",\"reason\":\"{reason}\",\"status\":502}}"));
    }
    let wanted = format!(
        "{{{wanted}\"whole-until-close\":{{\"a\":1}},\"well\":{{\"a\":1}},\"_errors\":[{}]}}",
        errors.join(",")
    );
    for _ in 0..2 {
        assert_eq!(without_times(&Client::new(gateway.http()).get("/all/1").await), wanted);
    }
}

#[tokio::test]
async fn more_than_was_told_is_no_answer_to_the_next_request() {
    let origin = RawOrigin::start(|mut stream, number| async move {
        loop {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            if head.is_empty() {
                return;
            }
            let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\"evil\"";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}{smuggled}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        NO_RETRIES,
        "20s",
        "a: { service: parts, path: /a }, b: { service: parts, path: /b, after: [a] }, c: { service: parts, path: /c, after: [b] }",
    );
    for _ in 0..5 {
        let text = Client::new(gateway.http()).get("/all/1").await.text();
        assert!(!text.contains("evil"), "{text}");
    }
}

#[tokio::test]
async fn work_grows_with_the_answer_and_no_faster() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        // Each member has the name that another gets.
        "/names" => origin::json(format!("{{\"a\":1{}}}", ",\"b\":2".repeat(120_000))),
        // One number of many digits among many that are the same up to there.
        "/numbers" => {
            origin::json(format!("[{{\"p\":0.5{}1}}{}]", "0".repeat(400_000), ",{\"p\":0.5}".repeat(40_000)))
        }
        "/merged" => {
            let members: Vec<String> =
                (0..60_000).map(|number| format!("\"k{}\":{number}", number % 7)).collect();
            origin::json(format!("{{{}}}", members.join(",")))
        }
        "/escaped" => origin::json(format!("{{\"s\\u0065cret\":0{}}}", ",\"s\\u0065cret\":1".repeat(50_000))),
        _ => origin::status(500),
    })
    .await;
    let gateway = super::gateway(
        &origin.url(),
        NO_RETRIES,
        "60s",
        "names: { service: parts, path: /names, rename: { a: b } }, merged: { service: parts, path: /merged, merge: true }, \
         escaped: { service: parts, path: /escaped, deny: [secret] }",
    );
    assert_eq!(
        Client::new(gateway.http()).get("/all/1").await.text(),
        r#"{"names":{"b":1},"k0":59997,"k1":59998,"k2":59999,"k3":59993,"k4":59994,"k5":59995,"k6":59996,"escaped":{}}"#
    );
    let sorted = crate::support::Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{}\"] }} }}\n\
         routes:\n- name: all\n  match: {{ path: /all }}\n  aggregate:\n    timeout: 60s\n    parts: {{ a: {{ service: parts, path: /numbers }} }}\n    \
         append: {{ list: {{ of: [a], sort_by: p, limit: 2 }} }}\n",
        origin.url()
    ));
    assert_eq!(Client::new(sorted.http()).get("/all").await.text(), r#"{"list":[{"p":0.5},{"p":0.5}]}"#);
}

#[tokio::test]
async fn no_answer_is_multiplied_beyond_its_bound() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/orders" => origin::json(format!("[{{\"p\":1}}{}]", ",{\"p\":1}".repeat(999))),
        "/product" | "/products?ids=1" => {
            origin::json(format!("[{{\"id\":1,\"text\":\"{}\"}}]", "x".repeat(500_000)))
        }
        "/nested" => origin::json("[".repeat(60) + "\"" + &"x".repeat(500_000) + "\"" + &"]".repeat(60)),
        "/wide" => origin::json("[".repeat(60) + "1" + &",1".repeat(200_000) + &"]".repeat(60)),
        "/bomb" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut encoder, &vec![b' '; 100 << 20]).expect("it is memory");
            let body = Bytes::from(encoder.finish().expect("it is memory"));
            Response::builder().header("content-encoding", "gzip").body(Full::from(body)).expect("constants")
        }
        _ => origin::status(500),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        NO_RETRIES,
        "60s",
        "orders: { service: parts, path: /orders, hidden: true }, \
         each: { service: parts, path: /product, for_each: \"$.orders[*]\", body: { p: \"{item.p}\" }, method: PUT, max_items: 1000 }, \
         many: { service: parts, path: /products, for_each: \"$.orders[*]\", batch: { parameter: ids, value: p, key: id }, max_items: 1000 }, \
         nested: { service: parts, path: /nested, select: \"$..*\" }, wide: { service: parts, path: /wide, select: \"$..*\" }, \
         bomb: { service: parts, path: /bomb, max_body: 1GiB }",
    );
    let error =
        |part: &str, reason: &str| format!("{{\"part\":\"{part}\",\"reason\":\"{reason}\",\"status\":502}}");
    let errors = [
        error("each", "part_too_large"),
        error("many", "part_too_large"),
        error("nested", "part_too_large"),
        error("wide", "part_wrong_shape"),
        error("bomb", "part_too_large"),
    ];
    assert_eq!(
        without_times(&Client::new(gateway.http()).get("/all/1").await),
        format!(
            "{{\"each\":[],\"many\":[],\"nested\":null,\"wide\":null,\"bomb\":null,\"_errors\":[{}]}}",
            errors.join(",")
        )
    );
    let alive = Client::new(gateway.http()).get("/all/1").await;
    assert_eq!(alive.status, 200);
}

#[tokio::test]
async fn an_element_that_is_meant_twice_has_its_answer_once() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/list" => origin::json(r#"[{"id":1,"in":{"id":2}},{}]"#),
        target => origin::json(format!("\"{target}\"")),
    })
    .await;
    let gateway = gateway(
        &origin.url(),
        NO_RETRIES,
        "20s",
        "list: { service: parts, path: /list }, \
         a: { service: parts, path: \"/{item.id}\", for_each: \"$.list[0,0]\", into: a }, \
         b: { service: parts, path: \"/b/{item.id}\", for_each: \"$.list..[?@.id]\", into: b }",
    );
    assert_eq!(
        Client::new(gateway.http()).get("/all/1").await.text(),
        r#"{"list":[{"id":1,"in":{"id":2,"b":"/b/2"},"a":"/1","b":"/b/1"},{}]}"#
    );
}
