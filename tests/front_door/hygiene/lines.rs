//! Line ends, control characters, and what a request line is made of (RFC 9112 §2.2, §3, §5).

use super::place;

#[tokio::test]
async fn bare_lf_is_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET / HTTP/1.1\nHost: a\n\n",
                "GET / HTTP/1.1\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX:\n1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX\n: 1\r\n\r\n",
                "GET /\n HTTP/1.1\r\nHost: a\r\n\r\n",
                "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn bare_cr_is_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET / HTTP/1.1\rHost: a\r\n\r\n",
                "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\r/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: \r1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX\r: 1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\rX: 1\r\n\r\n",
                "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn obs_fold_is_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n 1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n \r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n",
                "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                "GET / HTTP/1.1\r\n\tHost: a\r\nHost: a\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn nul_and_control_bytes_are_refused() {
    let place = place().await;
    for byte in (0u8..0x20).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')) {
        for (before, behind) in [("X: a", "b"), ("X: ", ""), ("X", ": a"), ("", "X: a")] {
            let mut request = format!("GET / HTTP/1.1\r\nHost: a\r\n{before}").into_bytes();
            request.push(byte);
            request.extend_from_slice(format!("{behind}\r\n\r\n").as_bytes());
            place.refuses(&request, 400, "invalid_request").await;
        }
    }
    for byte in [0u8, 1, 0x0b, 0x1f, 0x7f, b'\t'] {
        for (before, behind) in [("GET /a", "b HTTP/1.1"), ("G", "ET / HTTP/1.1"), ("GET / HTTP/1.1", "")] {
            let mut request = before.as_bytes().to_vec();
            request.push(byte);
            request.extend_from_slice(format!("{behind}\r\nHost: a\r\n\r\n").as_bytes());
            place.refuses(&request, 400, "invalid_request").await;
        }
    }
}

#[tokio::test]
async fn other_versions_are_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET /\r\n",
                "GET / \r\nHost: a\r\n\r\n",
                "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
                "GET / HTTP/3\r\nHost: a\r\n\r\n",
                "GET / HTTP/1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
                "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
                "GET / http/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
                "GET / XHTTP/1.1\r\nHost: a\r\n\r\n",
                "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn request_lines_of_another_form_are_refused() {
    let place = place().await;
    place
        .refuses_all(
            &[
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
                " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /a HTTP/1.1 x HTTP/1.1\r\nHost: a\r\n\r\n",
                "get / HTTP/1.1\r\nHost: a\r\n\r\n",
                "Get / HTTP/1.1\r\nHost: a\r\n\r\n",
                "dELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
                "propFind / HTTP/1.1\r\nHost: a\r\n\r\n",
                "\u{feff}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\u{a0}/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\x0b/\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\x0c/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\tx\r\nHost: a\r\n\r\n",
                "GET /a HTTP/1.1\0HTTP/1.1\r\nHost: a\r\n\r\n",
                "\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n",
                "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
                "/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET HTTP/1.1\r\nHost: a\r\n\r\n",
                "Host: a\r\n\r\n",
                "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            ],
            "invalid_request",
        )
        .await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_without_waiting_for_their_end() {
    let place = place().await;
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: 1\r\n".repeat(30));
    place.refuses(many.as_bytes(), 431, "headers_too_large").await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "1".repeat(9000));
    place.refuses(long.as_bytes(), 431, "headers_too_large").await;
    // More than the connection's buffers hold at once.
    let longer = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "1".repeat(900_000));
    place.refuses(longer.as_bytes(), 431, "headers_too_large").await;
    place.refuses(format!("GET /{}", "a".repeat(2000)).as_bytes(), 414, "uri_too_long").await;
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1024));
    place.refuses(target.as_bytes(), 414, "uri_too_long").await;
    let blank = "\r\n".repeat(10_000);
    place.refuses(blank.as_bytes(), 431, "headers_too_large").await;
}
