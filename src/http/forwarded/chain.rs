//! Reading the chain of addresses that proxies wrote. Foreign bytes: every form of them yields
//! something, and nothing here panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::FORWARDED;

use super::{Fields, MAX_HOPS, X_FORWARDED_FOR};

/// The entries of `X-Forwarded-For` from the last, which the peer wrote, to the first. `None` for one
/// that is no address.
pub(super) fn x_forwarded_for(headers: &Fields) -> impl Iterator<Item = Option<IpAddr>> {
    headers
        .get_all(&X_FORWARDED_FOR)
        .rev()
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        .map(|entry| entry.trim_ascii())
        // RFC 9110 §5.6.1.2: empty elements of a list are none.
        .filter(|entry| !entry.is_empty())
        .map(node)
}

/// What one proxy said in `Forwarded`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// `None` when it is absent, `unknown` or a pseudonym.
    pub(super) node: Option<IpAddr>,
    pub(super) proto: Option<Vec<u8>>,
    pub(super) host: Option<Vec<u8>>,
}

/// The elements of `Forwarded` in their order. A malformed line counts for nothing, and neither does what
/// comes before it: its own end can't be told. The last [`MAX_HOPS`] are returned.
pub(super) fn forwarded(headers: &Fields) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    for line in headers.get_all(&FORWARDED) {
        match parse_line(line) {
            Some(line) => elements.extend(line),
            None => elements.clear(),
        }
        let surplus = elements.len().saturating_sub(MAX_HOPS);
        elements.drain(..surplus);
    }
    elements
}

/// How many of the lines of `Forwarded` count for nothing: those up to the last malformed one.
pub(super) fn unreadable_lines(headers: &Fields) -> usize {
    let lines = headers.get_all(&FORWARDED).enumerate();
    lines.filter(|(_, line)| parse_line(line).is_none()).map(|(index, _)| index + 1).last().unwrap_or(0)
}

/// The first element of a comma-separated field.
pub(super) fn first_of_list(value: &[u8]) -> Option<&[u8]> {
    value.split(|&byte| byte == b',').next().map(|first| first.trim_ascii())
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
pub(super) fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port.then(|| address.parse::<Ipv6Addr>().ok().map(canonical))?;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    is_port(port).then(|| address.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

/// A number, or a pseudonym (RFC 7239 §6.3).
fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_pseudonym = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    is_number || text.strip_prefix('_').is_some_and(is_pseudonym)
}

/// RFC 7239 §4: elements of `name=value` pairs. Spaces around pairs and characters outside of tokens (a bare
/// IPv6 address, say) are put up with, since they can't be misunderstood.
fn parse_line(line: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut element = Element::default();
    let mut seen = Seen::default();
    let mut rest = line.trim_ascii();
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            rest = parse_pair(rest, &mut element, &mut seen)?.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', behind)) => rest = behind,
            Some((b',', behind)) => {
                if seen.any {
                    elements.push(std::mem::take(&mut element));
                    seen = Seen::default();
                }
                rest = behind;
            }
            Some(_) => return None,
            None => break,
        }
    }
    if seen.any {
        elements.push(element);
    }
    Some(elements)
}

/// Which parameters an element has had: each may occur once.
#[derive(Default)]
struct Seen {
    any: bool,
    node: bool,
}

/// Reads a pair and returns what is behind it.
fn parse_pair<'a>(text: &'a [u8], element: &mut Element, seen: &mut Seen) -> Option<&'a [u8]> {
    let equals = text.iter().position(|byte| matches!(byte, b'=' | b',' | b';' | b'"'))?;
    let (name, behind) = text.split_at(equals);
    let (value, rest) = parse_value(behind.strip_prefix(b"=")?)?;
    seen.any = true;
    if name.eq_ignore_ascii_case(b"for") {
        if std::mem::replace(&mut seen.node, true) {
            return None;
        }
        element.node = node(&value);
    } else if name.eq_ignore_ascii_case(b"proto") {
        if element.proto.replace(value).is_some() {
            return None;
        }
    } else if name.eq_ignore_ascii_case(b"host") && element.host.replace(value).is_some() {
        return None;
    }
    Some(rest)
}

/// A quoted string without its quotes and escapes, or everything up to the next separator.
fn parse_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let is_end = |byte: &u8| matches!(byte, b',' | b';' | b'"' | b' ' | b'\t');
        let end = text.iter().position(is_end).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((position, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[position + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            byte => value.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn nodes(line: &str) -> Option<Vec<Option<IpAddr>>> {
        Some(parse_line(line.as_bytes())?.into_iter().map(|element| element.node).collect())
    }

    #[test]
    fn nodes_come_with_and_without_ports_and_brackets() {
        for text in ["192.0.2.1", "192.0.2.1:80", "192.0.2.1:_x", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"]
        {
            assert_eq!(node(text.as_bytes()), address("192.0.2.1"), "{text}");
        }
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711"] {
            assert_eq!(node(text.as_bytes()), address("2001:db8::1"), "{text}");
        }
        for text in [
            "",
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:123456",
            "1.2.3.4:80:80",
            "[1.2.3.4]",
            "[::1",
            "[::1]80",
            "::1]:80",
            "fe80::1%eth0",
            "1.2.3.4 5.6.7.8",
            "01.2.3.4",
            "example.com",
            "\u{e9}",
        ] {
            assert_eq!(node(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_writes_it() {
        // The examples of RFC 7239 §4 and §7.1.
        assert_eq!(nodes("for=\"_gazonk\""), Some(vec![None]));
        assert_eq!(nodes("For=\"[2001:db8:cafe::17]:4711\""), Some(vec![address("2001:db8:cafe::17")]));
        assert_eq!(nodes("for=192.0.2.60;proto=http;by=203.0.113.43"), Some(vec![address("192.0.2.60")]));
        let two = Some(vec![address("192.0.2.43"), address("198.51.100.17")]);
        assert_eq!(nodes("for=192.0.2.43, for=198.51.100.17"), two);
        assert_eq!(
            nodes("for=192.0.2.43,for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"),
            two
        );
    }

    #[test]
    fn proto_and_host_are_read_with_escapes() {
        let line = br#"PROTO=https ; host="a\"b:80" ;ext="x,y;z", by=_me"#;
        let expected = [
            Element { node: None, proto: Some(b"https".to_vec()), host: Some(b"a\"b:80".to_vec()) },
            Element::default(),
        ];
        assert_eq!(parse_line(line).unwrap(), expected);
    }

    #[test]
    fn empty_elements_and_pairs_are_none() {
        assert_eq!(nodes(""), Some(vec![]));
        assert_eq!(nodes(" , ,;"), Some(vec![]));
        assert_eq!(nodes(";for=192.0.2.1;;,"), Some(vec![address("192.0.2.1")]));
    }

    #[test]
    fn malformed_lines_are_told() {
        for line in [
            "for",
            "for=",
            "for=\"",
            "for=\"a\\",
            "for=a b",
            "for=\"a\"b",
            "for=1.1.1.1;for=2.2.2.2",
            "\"x\"=1",
        ] {
            assert_eq!(nodes(line), None, "{line}");
        }
    }

    #[test]
    fn a_malformed_line_hides_what_is_before_it_but_not_what_is_behind() {
        let mut headers = Fields::new();
        for line in ["for=192.0.2.1", "for=\"", "for=192.0.2.2"] {
            headers.append(FORWARDED, http::HeaderValue::from_static(line));
        }
        let found: Vec<_> = forwarded(&headers).into_iter().map(|element| element.node).collect();
        assert_eq!(found, [address("192.0.2.2")]);
    }

    #[test]
    fn only_the_nearest_hops_are_returned() {
        let mut headers = Fields::new();
        let line = vec!["for=192.0.2.1"; 3 * MAX_HOPS].join(",") + ",for=192.0.2.2";
        headers.append(FORWARDED, http::HeaderValue::from_str(&line).unwrap());
        let found = forwarded(&headers);
        assert_eq!(found.len(), MAX_HOPS);
        assert_eq!(found.last().unwrap().node, address("192.0.2.2"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            node(&bytes);
            parse_line(&bytes);
        }

        #[test]
        fn likely_bytes_are_read_without_a_panic(line in "([fF]or|proto|host|by|x|[;,=\" \\\\\\[\\]:._a-f0-9]){0,40}") {
            parse_line(line.as_bytes());
        }
    }
}
