//! The chunked coding of requests (RFC 9112 §7.1).

use super::place;

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn all_refused(bodies: &[&str]) {
    let place = place().await;
    for body in bodies {
        place.refuses(format!("{HEAD}{body}").as_bytes(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn chunk_sizes_out_of_range_are_refused() {
    all_refused(&[
        "\r\nabc\r\n0\r\n\r\n",
        "x\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "0_3\r\nabc\r\n0\r\n\r\n",
        "3.0\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "3 x;a\r\nabc\r\n0\r\n\r\n",
        " 3;a\r\nabc\r\n0\r\n\r\n",
        ";a\r\nabc\r\n0\r\n\r\n",
        // Seventeen digits: 2^64 and three, and three with zeros in front.
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "8000000000000000\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn chunk_lines_with_a_bare_cr_or_lf_are_refused() {
    all_refused(&[
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\rabc\r\n0\r\n\r\n",
        "3\n\rabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
    ])
    .await;
}

#[tokio::test]
async fn chunk_extensions_that_hide_a_line_end_are_refused() {
    all_refused(&[
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;\nabc\r\n0\r\n\r\n",
        // The end of the line is the end of the line, in quotation marks too.
        "3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\nx\"\r\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3;\x7f\r\nabc\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn chunk_extensions_without_end_are_refused() {
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    // Each is short, and there is next to no content between them.
    let many = format!("1;{}\r\nx\r\n", "e".repeat(900)).repeat(40) + "0\r\n\r\n";
    let blank = format!("3{};a\r\nabc\r\n0\r\n\r\n", " ".repeat(20_000));
    all_refused(&[&long, &many, &blank]).await;
}

#[tokio::test]
async fn malformed_trailers_are_refused() {
    let long = format!("0\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("0\r\n{}\r\n", "x: 1\r\n".repeat(30));
    all_refused(&[
        "0\r\n x: folded\r\n\r\n",
        "0\r\nx: 1\r\n folded\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nx: 1\ry: 2\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\n: 1\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
        &long,
        &many,
    ])
    .await;
}

/// Where readers have differed: what ends a line of a chunk, what may stand before and behind its content, and what the last one
/// looks like. The request that the rest would be never comes to be.
#[tokio::test]
async fn chunks_that_readers_have_read_differently_are_refused() {
    let smuggled = "GET /evil HTTP/1.1\r\nHost: a\r\nX: ";
    let length = smuggled.len();
    let place = place().await;
    for bodies in [
        // The line ends at a bare LF or CR in an extension for one, and at CR LF for the other.
        format!("2;\nxx\r\n{length:x}\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("2;a\nxx\r\n{length:x}\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("2;\rxx\r\n{length:x}\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("2\nxx\n0\n\n{smuggled}"),
        format!("2\n;\r\nxx\r\n0\r\n\r\n{smuggled}"),
        // Two bytes behind the content are skipped whatever they are, or one is, or none.
        format!("5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("5\r\nAAAAA\n2\r\n45\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("5\r\nAAAAA\r2\r\n45\r\n0\r\n\r\n{smuggled}\r\n0\r\n\r\n"),
        format!("5\r\nAAAAA\n\r0\r\n\r\n{smuggled}"),
        format!("5\r\nAAAAA\r\r\n0\r\n\r\n{smuggled}"),
        // More lines than there are.
        format!("5\r\nAAAAA\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("\r\n5\r\nAAAAA\r\n0\r\n\r\n{smuggled}"),
        format!("\n5\r\nAAAAA\r\n0\r\n\r\n{smuggled}"),
        // The last chunk.
        format!("0\n\r\n{smuggled}"),
        format!("0\r\n\n{smuggled}"),
        format!("0\r\n\r{smuggled}"),
        format!("0\r\rX\r\n\r\n{smuggled}"),
        format!("0 \r\n\r\n{smuggled}"),
        format!("+0\r\n\r\n{smuggled}"),
        format!("-0\r\n\r\n{smuggled}"),
        format!("0x\r\n\r\n{smuggled}"),
        format!("0x0\r\n\r\n{smuggled}"),
        format!("0\0\r\n\r\n{smuggled}"),
        format!("0,0\r\n\r\n{smuggled}"),
        format!("0\u{a0}\r\n\r\n{smuggled}"),
        format!("\u{ff10}\r\n\r\n{smuggled}"),
        // Sizes whose first digits some leave out.
        format!("100000000\r\n{smuggled}"),
        format!("ffffffff00000005\r\nAAAAA\r\n0\r\n\r\n{smuggled}"),
        format!("0000000000000000000005\r\nAAAAA\r\n0\r\n\r\n{smuggled}"),
    ] {
        let before = place.origin.count();
        let mut stream = tokio::net::TcpStream::connect(place.gateway.http()).await.expect("it listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{HEAD}{bodies}").as_bytes())
            .await
            .expect("it reads");
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("it has no more to say");
        let answer = crate::support::raw::read_until_close(&mut stream).await;
        let is_refused = ["HTTP/1.1 400 ", "HTTP/1.1 499 "].iter().any(|start| answer.starts_with(start));
        assert!(answer.is_empty() || is_refused, "{bodies:?} → {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            usize::from(!answer.is_empty()),
            "{bodies:?} → {answer}"
        );
        assert_eq!(place.origin.count(), before, "{bodies:?} was forwarded");
    }
}

/// A service may merge trailers into the head, and would then believe them like the head's.
#[tokio::test]
async fn trailers_that_carry_framing_or_identity_are_dropped() {
    let place = place().await;
    let unwanted = [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: Bearer evil",
        "Proxy-Authorization: Basic evil",
        "Cookie: evil=1",
        "X-Forwarded-For: 6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "X-User-Id: root",
        "X_User_Id: root",
        "X-Scopes: admin",
        "X-Http-Method-Override: DELETE",
        "Connection: close",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "Proxy: evil",
        "TE: trailers",
        "Trailer: x",
        "Content-Type: text/evil",
    ];
    let names = unwanted.map(|field| field.split(':').next().expect("a name"));
    for (field, name) in unwanted.iter().zip(names) {
        let seen = place
            .passes(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: X-Sum, {name}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{field}\r\nX-Sum: 7\r\n\r\n"
            ))
            .await;
        assert_eq!(seen.trailers, [("x-sum".to_owned(), b"7".to_vec())], "{field}");
        assert!(
            !seen.has(name) || !seen.all(name).iter().any(|value| value.contains("evil")),
            "{}",
            seen.head
        );
    }
}

#[tokio::test]
async fn it_makes_no_difference_how_the_bytes_are_cut() {
    use tokio::io::AsyncWriteExt;
    let place = place().await;
    let request = "POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n\
                   GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(place.gateway.http()).await.expect("it listens");
    stream.set_nodelay(true).expect("a plain option");
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).await.expect("it reads");
        tokio::task::yield_now().await;
    }
    let answer = crate::support::raw::read_until_close(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    let seen = place.origin.requests();
    assert_eq!((seen[0].target.as_str(), &seen[0].body[..]), ("/cut", &b"hello world"[..]));
    assert_eq!(seen[1].target, "/next");
}
