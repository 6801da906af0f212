//! What is kept, who is given it, for how long, and how much of it there is.

use http::HeaderValue;

use super::*;

const NO_TIME: Duration = Duration::ZERO;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
    let pair = |&(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(pair).collect()
}

fn get(key: &str, headers: &[(&'static str, &'static str)]) -> Asked {
    Asked {
        key: key.into(),
        method: Method::GET,
        headers: fields(headers),
        is_identified: headers.iter().any(|(name, _)| *name == "authorization"),
        is_own: false,
        has_body: false,
        spoken_for: vec![HeaderName::from_static("x-user")],
    }
}

fn stale(max: usize) -> Stale {
    Stale { keep_for: DAY, store: Arc::new(StaleStore::new(max)) }
}

/// Keeps an answer to `asked`, if it may be.
fn keep(stale: &Stale, asked: &Asked, lines: &[(&'static str, &'static str)], at: u64, body: &[u8]) -> bool {
    let response = fields(lines);
    let Some(kept) = stale.to_keep(asked, StatusCode::OK, &response, Millis(at), NO_TIME) else {
        return false;
    };
    let mut held = stale.store.hold();
    if !stale.store.add(&mut held, kept.head_bytes() + body.len()) {
        return false;
    }
    stale.store.put(Arc::new(kept.with_body(bytes::Bytes::copy_from_slice(body), held)));
    true
}

fn found(stale: &Stale, asked: &Asked, at: u64) -> Option<String> {
    let kept = stale.find(asked, Millis(at))?;
    Some(String::from_utf8_lossy(&kept.body).into_owned())
}

#[test]
fn the_last_one_is_found_by_its_key() {
    let stale = stale(1 << 20);
    assert_eq!(found(&stale, &get("/a", &[]), 0), None, "there is no table yet");
    assert!(keep(&stale, &get("/a", &[]), &[], 1, b"one"));
    assert!(keep(&stale, &get("/a", &[]), &[], 2, b"two"));
    assert!(keep(&stale, &get("/b", &[]), &[], 3, b"other"));
    assert_eq!(found(&stale, &get("/a", &[]), 4).as_deref(), Some("two"));
    assert_eq!(found(&stale, &get("/b", &[]), 4).as_deref(), Some("other"));
    assert_eq!(found(&stale, &get("/c", &[]), 4), None);
    assert_eq!(stale.store.held().answers, 2, "an answer takes the place of the one before");
    // One that was slow to come.
    keep(&stale, &get("/a", &[]), &[], 1, b"one");
    assert_eq!(found(&stale, &get("/a", &[]), 4).as_deref(), Some("two"));
}

#[test]
fn only_what_may_be_kept_is() {
    let plain = get("/", &[]);
    for (lines, kept) in [
        (&[][..], true),
        (&[("cache-control", "max-age=0")], true),
        (&[("cache-control", "no-store")], false),
        (&[("cache-control", "max-age=60, private")], false),
        (&[("cache-control", "private=\"x-a\"")], false),
        (&[("cache-control", "no-cache")], false),
        (&[("cache-control", "must-revalidate")], false),
        (&[("cache-control", "max-age=60, must-revalidate")], true),
        (&[("cache-control", "s-maxage=0")], false),
        (&[("cache-control", "s-maxage=0, stale-if-error=5")], true),
        (&[("cache-control", "stale-if-error=0")], false),
        (&[("set-cookie", "a=b")], false),
        (&[("vary", "*")], false),
        (&[("vary", "accept")], true),
        // What the service was told there is not what the client has sent.
        (&[("vary", "x-user")], false),
        (&[("vary", "x-forwarded-for")], false),
    ] {
        assert_eq!(keep(&stale(1 << 20), &plain, lines, 0, b"x"), kept, "{lines:?}");
    }
    let stale = stale(1 << 20);
    assert!(!keep(&stale, &get("/", &[("cache-control", "no-store")]), &[], 0, b"x"));
    assert!(!keep(&stale, &Asked { method: Method::HEAD, ..get("/", &[]) }, &[], 0, b"x"));
    assert!(!keep(&stale, &Asked { has_body: true, ..get("/", &[]) }, &[], 0, b"x"));
    for status in [204, 206, 301, 304, 404, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        assert!(stale.to_keep(&plain, status, &fields(&[]), Millis(0), NO_TIME).is_none(), "{status}");
    }
}

#[test]
fn what_is_somebodys_is_given_to_nobody_else() {
    const PUBLIC: (&str, &str) = ("cache-control", "public");
    let (nobody, user) = (get("/", &[]), get("/", &[("authorization", "Bearer a")]));
    let (one, other) = (get("/", &[("cookie", "s=1")]), get("/", &[("cookie", "s=2")]));
    let with = |asked: &Asked, lines| {
        let stale = stale(1 << 20);
        keep(&stale, asked, lines, 0, b"x").then_some(stale)
    };
    assert!(with(&user, &[]).is_none() && with(&one, &[]).is_none());
    let public = with(&user, &[PUBLIC]).expect("it is everybody's");
    for asked in [&nobody, &user, &one] {
        assert!(found(&public, asked, 0).is_some());
    }
    let of_nobody = with(&nobody, &[]).expect("nobody's");
    assert!(found(&of_nobody, &user, 0).is_none() && found(&of_nobody, &one, 0).is_none());
    let by_cookie = with(&one, &[("vary", "Cookie")]).expect("it says whose it is");
    assert!(found(&by_cookie, &one, 0).is_some());
    assert!(found(&by_cookie, &other, 0).is_none() && found(&by_cookie, &nobody, 0).is_none());
    assert!(with(&user, &[("vary", "authorization")]).is_none());
}

#[test]
fn answers_that_vary_stand_beside_each_other() {
    let stale = stale(1 << 20);
    let by_language = [("vary", "Accept-Language")];
    let (english, german) = (get("/", &[("accept-language", "en")]), get("/", &[("accept-language", "de")]));
    keep(&stale, &english, &by_language, 0, b"hello");
    keep(&stale, &german, &by_language, 1, b"hallo");
    assert_eq!(found(&stale, &english, 2).as_deref(), Some("hello"));
    assert_eq!(found(&stale, &german, 2).as_deref(), Some("hallo"));
    assert_eq!(found(&stale, &get("/", &[]), 2), None);
    // Told to vary no more: the later of those that fit is given.
    keep(&stale, &english, &[], 3, b"same for all");
    assert_eq!(found(&stale, &german, 4).as_deref(), Some("same for all"));
}

#[test]
fn it_is_given_for_as_long_as_both_sides_allow() {
    let asked = get("/", &[]);
    for (control, seconds) in [
        ("max-age=5", 24 * 3600),
        ("max-age=5, must-revalidate", 5),
        ("max-age=5, stale-if-error=7", 12),
        ("s-maxage=5", 5),
        ("s-maxage=5, stale-if-error=999999999", 24 * 3600),
    ] {
        let stale = stale(1 << 20);
        keep(&stale, &asked, &[("cache-control", control)], 0, b"x");
        assert!(found(&stale, &asked, seconds * 1000).is_some(), "{control}");
        assert!(found(&stale, &asked, seconds * 1000 + 1).is_none(), "{control}");
    }
    let stale = stale(1 << 20);
    keep(&stale, &asked, &[("age", "3"), ("cache-control", "max-age=5")], 0, b"x");
    let kept = stale.find(&asked, Millis(10_000)).unwrap();
    assert_eq!(kept.age_and_freshness(Millis(10_000)), (13, -8));
    assert!(!kept.fields().contains(&header::AGE), "an age is told when it is given");
}

#[test]
fn what_is_gone_or_changed_is_forgotten() {
    let of = |method: Method| Asked { method, ..get("/", &[]) };
    for (method, status, gone) in [
        (Method::GET, 404, true),
        (Method::GET, 410, true),
        (Method::GET, 403, false),
        (Method::GET, 503, false),
        (Method::HEAD, 404, false),
        (Method::DELETE, 204, true),
        (Method::POST, 303, true),
        (Method::PUT, 409, false),
        (Method::OPTIONS, 200, false),
    ] {
        let stale = stale(1 << 20);
        keep(&stale, &get("/", &[]), &[], 0, b"x");
        keep(&stale, &get("/other", &[]), &[], 0, b"x");
        stale.learn(&of(method.clone()), StatusCode::from_u16(status).unwrap());
        assert_eq!(found(&stale, &get("/", &[]), 0).is_none(), gone, "{method} {status}");
        assert!(found(&stale, &get("/other", &[]), 0).is_some());
    }
}

#[test]
fn bytes_and_places_are_bounded_and_what_is_read_counts_until_it_is_let_go() {
    let max = 1 << 20;
    let stale = stale(max);
    let body = vec![b'x'; 50_000];
    for number in 0..200 {
        assert!(keep(&stale, &get(&format!("/{number}"), &[]), &[], number, &body));
        assert!(stale.store.held().bytes <= max);
    }
    let held = stale.store.held();
    assert!(held.answers >= 10 && held.bytes > max / 2, "{held:?}");
    assert!(!keep(&stale, &get("/large", &[]), &[], 0, &vec![b'x'; max / 8]), "no answer takes that much");
    for number in 0..20_000 {
        keep(&stale, &get(&format!("/short/{number}"), &[]), &[], number, b"x");
    }
    assert!(stale.store.held().answers <= max / 2048);

    let small = StaleStore::new(1 << 16);
    let mut copies: Vec<_> = (0..20).map(|_| small.hold()).collect();
    let begun = copies.iter_mut().map(|held| small.add(held, 8000)).filter(|fits| *fits).count();
    assert_eq!(begun, 8, "copies on their way count, and there was nothing to take away for them");
    drop(copies);
    assert_eq!(small.held().bytes, 0);
}

#[test]
fn another_size_keeps_what_there_is_room_for() {
    let stale = stale(1 << 20);
    for number in 0..100 {
        keep(&stale, &get(&format!("/{number}"), &[]), &[], number, &[b'x'; 1000]);
    }
    let found_in = |store: StaleStore| {
        let stale = Stale { keep_for: DAY, store: Arc::new(store) };
        (0..100).filter(|number| found(&stale, &get(&format!("/{number}"), &[]), 0).is_some()).count()
    };
    assert_eq!(found_in(stale.store.resized(2 << 20)), 100);
    let fewer = found_in(stale.store.resized(1 << 16));
    assert!((20..100).contains(&fewer), "{fewer}");
}

#[test]
fn workers_that_write_the_same_places_at_once_lose_nothing_but_answers() {
    let stale = stale(1 << 16);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let stale = &stale;
            scope.spawn(move || {
                for turn in 0..2_000 {
                    let key = format!("/{}", turn % 30);
                    keep(stale, &get(&key, &[]), &[], worker, key.as_bytes());
                    if let Some(body) = found(stale, &get(&key, &[]), 0) {
                        assert_eq!(body, key);
                    }
                }
            });
        }
    });
    let counted = stale.store.held().bytes;
    assert!(counted <= 1 << 16, "{counted}");
    for number in 0..30 {
        stale.store.forget(&format!("/{number}"));
    }
    assert_eq!(stale.store.held(), StaleHeld { answers: 0, bytes: 0, max_bytes: 1 << 16 });
}
