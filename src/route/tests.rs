//! Tables of routes and requests, in a notation of one line each, and the route that each request takes.

use http::{HeaderName, HeaderValue, Method};

use super::*;
use crate::config::{At, HostPattern, Match, PathMatch, Span, ValueMatch};

/// A route from words: `GET,POST` methods, `/a/{b}` path, `/a*` prefix, `~re` regex, `?k=v` `?k~re` `?k`
/// `?!k` query, `x-a=v` `x-a~re` header, and anything else a host.
pub(super) fn route(line: &str) -> Match {
    let at = |value: &str| At { value: value.to_owned(), span: Span::default() };
    let mut matches = Match {
        path: PathMatch::Prefix(at("/")),
        hosts: Vec::new(),
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
    };
    for word in line.split_whitespace() {
        if let Some(prefix) = word.strip_suffix('*').filter(|word| word.starts_with('/')) {
            matches.path = PathMatch::Prefix(at(prefix));
        } else if word.starts_with('/') {
            matches.path = PathMatch::Path(at(word));
        } else if let Some(pattern) = word.strip_prefix('~') {
            matches.path = PathMatch::Regex(at(pattern));
        } else if let Some(condition) = word.strip_prefix('?') {
            let (key, value) = value_match(condition);
            matches.query.push((key.to_owned(), value));
        } else if word.contains(['=', '~']) {
            let (name, value) = value_match(word);
            matches.headers.push((HeaderName::from_bytes(name.as_bytes()).expect("a name"), value));
        } else if let Some(suffix) = word.strip_prefix("*.") {
            matches.hosts.push(HostPattern::Wildcard(suffix.to_owned()));
        } else if word.starts_with(|first: char| first.is_ascii_uppercase()) {
            matches.methods.extend(word.split(',').map(|name| name.parse::<Method>().expect("a method")));
        } else {
            matches.hosts.push(HostPattern::Exact(word.to_owned()));
        }
    }
    matches
}

fn value_match(condition: &str) -> (&str, ValueMatch) {
    if let Some((key, value)) = condition.split_once('=') {
        (key, ValueMatch::Exact(value.to_owned()))
    } else if let Some((key, pattern)) = condition.split_once('~') {
        (key, ValueMatch::Regex(pattern.to_owned()))
    } else if let Some(key) = condition.strip_prefix('!') {
        (key, ValueMatch::Present(false))
    } else {
        (condition, ValueMatch::Present(true))
    }
}

/// A request from words: method, host, path with query, then `name=value` fields.
pub(super) struct Request {
    method: Method,
    host: String,
    target: String,
    headers: Fields,
}

impl Request {
    pub(super) fn new(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("method, host and path");
        let (method, host, target) =
            (next().parse().expect("a method"), next().to_owned(), next().to_owned());
        let mut headers = Fields::new();
        for word in words {
            let (name, value) = word.split_once('=').expect("a field has a value");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        Request { method, host, target, headers }
    }

    pub(super) fn query(&self) -> Query<'_> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        Query { host: &self.host, path, method: &self.method, headers: &self.headers, query }
    }
}

fn table<'l>(routes: &[&'l str]) -> Table<&'l str> {
    let compiled = Table::compile(routes.iter().map(|line| (route(line), *line)));
    compiled.unwrap_or_else(|error| panic!("{error}: {}", error.cause))
}

/// The route's line, `405: ` and the methods allowed, or `404`.
fn outcome(table: &Table<&str>, found: Found) -> String {
    match found {
        Found::Route { place, .. } => table[place].to_string(),
        Found::MethodNotAllowed { allow } => format!("405: {}", allow.to_str().expect("methods")),
        Found::None => "404".to_owned(),
    }
}

/// Checks requests against a table with its routes in the order given and in the reverse: no outcome
/// may depend on the order.
fn check(routes: &[&str], expected: &[(&str, &str)]) {
    let mut reversed = routes.to_vec();
    reversed.reverse();
    for routes in [routes, &reversed] {
        let table = table(routes);
        for (request, expected) in expected {
            let request_line = Request::new(request);
            assert_eq!(
                outcome(&table, table.find(&request_line.query())),
                *expected,
                "{request}\n{routes:#?}"
            );
        }
    }
}

#[test]
fn hosts_from_exact_over_wildcards_to_any() {
    check(
        &[
            "a.example.com /*",
            "*.example.com /*",
            "*.b.example.com /*",
            "*.com /*",
            "10.0.0.1 /*",
            "[::1] /*",
            "/*",
        ],
        &[
            ("GET a.example.com /x", "a.example.com /*"),
            ("GET c.example.com /x", "*.example.com /*"),
            ("GET x.a.example.com /x", "*.example.com /*"),
            ("GET x.b.example.com /x", "*.b.example.com /*"),
            ("GET y.x.b.example.com /x", "*.b.example.com /*"),
            ("GET b.example.com /x", "*.example.com /*"),
            // A wildcard stands for one label at least.
            ("GET example.com /x", "*.com /*"),
            ("GET com /x", "/*"),
            ("GET badexample.com /x", "*.com /*"),
            ("GET 10.0.0.1 /x", "10.0.0.1 /*"),
            ("GET [::1] /x", "[::1] /*"),
            ("GET localhost /x", "/*"),
        ],
    );
}

#[test]
fn a_host_counts_more_than_a_path() {
    check(
        &["a.example /*", "*.example /x/y", "/x/y GET ?q=1 x-a=1"],
        &[
            ("GET a.example /x/y?q=1 x-a=1", "a.example /*"),
            ("GET b.example /x/y?q=1 x-a=1", "*.example /x/y"),
            ("GET b.example /x?q=1 x-a=1", "404"),
            ("GET c /x/y?q=1 x-a=1", "/x/y GET ?q=1 x-a=1"),
        ],
    );
}

#[test]
fn paths_from_literal_over_parameters_and_prefixes_to_regexes() {
    check(
        &[
            "/users/me",
            "/users/{id}",
            "/users/{id}/orders",
            "/users/me/{what}",
            "/users/{id}/{what}",
            "/{a}/me/orders",
            "/users*",
            "/users/me/orders/old*",
            "~/users/[0-9]+/(x|y)/z",
            "~/other/.*",
            "~/other/[a-z]+",
        ],
        &[
            ("GET h /users/me", "/users/me"),
            ("GET h /users/7", "/users/{id}"),
            ("GET h /users/me/orders", "/users/me/{what}"),
            ("GET h /users/7/orders", "/users/{id}/orders"),
            ("GET h /users/7/carts", "/users/{id}/{what}"),
            ("GET h /groups/me/orders", "/{a}/me/orders"),
            ("GET h /users", "/users*"),
            ("GET h /users/", "/users*"),
            ("GET h /users/me/", "/users*"),
            ("GET h /users/1/x/z", "/users*"),
            ("GET h /users/me/orders/old", "/users/me/orders/old*"),
            ("GET h /users/me/orders/old/", "/users/me/orders/old*"),
            ("GET h /users/me/orders/older", "/users*"),
            ("GET h /usersx", "404"),
            ("GET h /user", "404"),
            ("GET h /other/abc", "~/other/[a-z]+"),
            ("GET h /other/1", "~/other/.*"),
            ("GET h /other", "404"),
            ("GET h /x/other/abc", "404"),
            ("GET h /", "404"),
        ],
    );
}

#[test]
fn prefixes_are_whole_segments_and_slashes_at_their_end_say_nothing() {
    check(
        &["/*", "/a/*", "/a/b*", "/a/b/c/d*", "/"],
        &[
            ("GET h /", "/"),
            ("GET h /x", "/*"),
            ("GET h /a", "/a/*"),
            ("GET h /a/", "/a/*"),
            ("GET h /ab", "/*"),
            ("GET h /a/bc", "/a/*"),
            ("GET h /a/b", "/a/b*"),
            ("GET h /a/b/c", "/a/b*"),
            ("GET h /a/b/c/d/e", "/a/b/c/d*"),
        ],
    );
}

#[test]
fn a_path_with_a_slash_at_its_end_is_another() {
    check(
        &["/a", "/b/", "/c/{x}", "/c/{x}/"],
        &[
            ("GET h /a", "/a"),
            ("GET h /a/", "404"),
            ("GET h /b", "404"),
            ("GET h /b/", "/b/"),
            ("GET h /c/1", "/c/{x}"),
            ("GET h /c/1/", "/c/{x}/"),
            // A parameter is never empty.
            ("GET h /c/", "404"),
            ("GET h /c//", "404"),
        ],
    );
}

#[test]
fn then_method_then_headers_then_query() {
    check(
        &[
            "/x",
            "/x GET",
            "/x x-a=1",
            "/x x-a=1 x-b=1",
            "/x x-a=1 ?q=1",
            "/x ?q=1",
            "/x ?q=1 ?r=1 ?s=1",
            "/x POST x-a=1",
        ],
        &[
            ("GET h /x", "/x GET"),
            ("GET h /x?q=1&r=1&s=1 x-a=1 x-b=1", "/x GET"),
            ("PUT h /x", "/x"),
            ("PUT h /x?q=1&r=1&s=1 x-a=1 x-b=1", "/x x-a=1 x-b=1"),
            ("PUT h /x?q=1&r=1&s=1 x-a=1", "/x x-a=1 ?q=1"),
            ("PUT h /x?r=1 x-a=1", "/x x-a=1"),
            ("PUT h /x?q=1&r=1&s=1", "/x ?q=1 ?r=1 ?s=1"),
            ("PUT h /x?q=1", "/x ?q=1"),
            ("POST h /x x-a=1", "/x POST x-a=1"),
            ("POST h /x?q=1", "/x ?q=1"),
        ],
    );
}

#[test]
fn a_failed_condition_leads_to_the_next_less_specific_route() {
    check(
        &[
            "a.example /x/y x-a=1",
            "a.example /x/{p} x-a=2",
            "a.example /x* x-a=3",
            "a.example /* x-a=4",
            "a.example ~/x/. x-a=5",
            "*.example /x/y x-a=6",
            "/* x-a=7",
        ],
        &[
            ("GET a.example /x/y x-a=1", "a.example /x/y x-a=1"),
            ("GET a.example /x/y x-a=2", "a.example /x/{p} x-a=2"),
            ("GET a.example /x/y x-a=3", "a.example /x* x-a=3"),
            ("GET a.example /x/y x-a=4", "a.example /* x-a=4"),
            ("GET a.example /x/y x-a=5", "a.example ~/x/. x-a=5"),
            ("GET a.example /x/y x-a=6", "*.example /x/y x-a=6"),
            ("GET a.example /x/y x-a=7", "/* x-a=7"),
            ("GET a.example /x/y x-a=8", "404"),
        ],
    );
}

#[test]
fn file_order_decides_between_equals() {
    let first = |routes: &[&str], request: &str| {
        let table = table(routes);
        outcome(&table, table.find(&Request::new(request).query()))
    };
    let both = ["/x x-a=1", "/x x-b=1"];
    assert_eq!(first(&both, "GET h /x x-a=1 x-b=1"), both[0]);
    assert_eq!(first(&[both[1], both[0]], "GET h /x x-a=1 x-b=1"), both[1]);
    let regexes = ["~/[a-x]", "~/[b-y]"];
    assert_eq!(first(&regexes, "GET h /b"), regexes[0]);
}

#[test]
fn a_wrong_method_is_405_with_every_method_that_would_do() {
    check(
        &[
            "/x/y GET,POST",
            "/x/{p} PUT",
            "/x* DELETE",
            "/x* PURGE x-a=1",
            "~/x/y PATCH",
            "*.example /x/y TRACE",
            "/z POST",
        ],
        &[
            ("OPTIONS h /x/y", "405: GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("OPTIONS h /x/y x-a=1", "405: GET, HEAD, POST, PUT, PATCH, DELETE, PURGE"),
            ("OPTIONS a.example /x/y", "405: GET, HEAD, POST, PUT, PATCH, DELETE, TRACE"),
            ("OPTIONS h /x/q", "405: PUT, DELETE"),
            ("OPTIONS h /x", "405: DELETE"),
            ("UNKNOWN h /x", "405: DELETE"),
            ("GET h /z", "405: POST"),
            ("HEAD h /z", "405: POST"),
            // A less specific route that takes the method wins over a 405.
            ("DELETE h /x/y", "/x* DELETE"),
            ("PATCH h /x/y", "~/x/y PATCH"),
            ("PURGE h /x/y", "405: GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("PURGE h /x/y x-a=1", "/x* PURGE x-a=1"),
            ("GET h /y", "404"),
        ],
    );
}

#[test]
fn head_is_served_by_get_unless_a_route_names_it() {
    check(&["/x GET"], &[("HEAD h /x", "/x GET"), ("POST h /x", "405: GET, HEAD")]);
    check(
        &["/x GET x-a=1", "/x GET", "/x HEAD", "/x"],
        &[
            ("HEAD h /x x-a=1", "/x HEAD"),
            ("GET h /x x-a=1", "/x GET x-a=1"),
            ("GET h /x", "/x GET"),
            ("PUT h /x", "/x"),
        ],
    );
    // A more specific path comes first, even when it has HEAD only from GET.
    check(&["/x GET", "/* HEAD"], &[("HEAD h /x", "/x GET"), ("HEAD h /y", "/* HEAD")]);
}

#[test]
fn an_unknown_method_is_for_routes_of_any() {
    check(&["/x", "/y BREW"], &[("BREW h /x", "/x"), ("BREW h /y", "/y BREW"), ("brew h /y", "405: BREW")]);
}

#[test]
fn regex_conditions_match_whole_values() {
    check(
        &["/x x-a~[0-9]+ ?v~1|10", "/x"],
        &[
            ("GET h /x?v=10 x-a=12", "/x x-a~[0-9]+ ?v~1|10"),
            ("GET h /x?v=100 x-a=12", "/x"),
            ("GET h /x?v=10 x-a=12b", "/x"),
            ("GET h /x?v=%31 x-a=1", "/x x-a~[0-9]+ ?v~1|10"),
        ],
    );
    check(&["/x ?!debug"], &[("GET h /x?debug", "404"), ("GET h /x", "/x ?!debug")]);
}

#[test]
fn parameters_are_the_segments_that_stand_for_them() {
    let table = table(&["/users/{id}/orders/{order}", "/users/me/orders/{order}", "/{a}/{b}", "/p*"]);
    let values = |line: &str| -> Vec<String> {
        let request = Request::new(line);
        let Found::Route { params, .. } = table.find(&request.query()) else { panic!("{line}: no route") };
        let value = |slot| params.value(request.query().path, slot).map(String::from);
        assert_eq!(value(params.len()), None);
        (0..params.len()).filter_map(value).collect()
    };
    assert_eq!(values("GET h /users/7/orders/%C3%A9"), ["7", "%C3%A9"]);
    assert_eq!(values("GET h /users/me/orders/9"), ["9"]);
    assert_eq!(values("GET h /x/a%2Fb"), ["x", "a%2Fb"]);
    assert_eq!(values("GET h /p/1/2"), [""; 0]);
}

#[test]
fn routes_are_brought_into_the_form_of_requests() {
    check(
        &["a.EXAMPLE. /%7euser/caf%c3%a9", "*.B.example /x%2fy*"],
        &[
            ("GET a.example /~user/caf%C3%A9", "a.EXAMPLE. /%7euser/caf%c3%a9"),
            ("GET x.b.example /x%2Fy/z", "*.B.example /x%2fy*"),
        ],
    );
}

#[test]
fn a_preflight_finds_the_route_of_the_request_it_announces() {
    let routes =
        ["/api/users POST", "/api* OPTIONS", "/v/{x} PUT x-version=1", "/v/{x} PUT x-other=1", "/any"];
    let table = table(&routes);
    let preflight = |line: &str, requested: Method| {
        let request = Request::new(line);
        outcome(&table, table.find_preflight(&request.query(), &requested))
    };
    assert_eq!(preflight("OPTIONS h /api/users", Method::POST), "/api/users POST");
    assert_eq!(preflight("OPTIONS h /api/users", Method::PUT), "/api* OPTIONS");
    assert_eq!(preflight("OPTIONS h /any", Method::PUT), "/any");
    assert_eq!(preflight("OPTIONS h /v/1", Method::PUT), "404");
    let announced = "access-control-request-headers=content-type,x-other";
    assert_eq!(preflight(&format!("OPTIONS h /v/1 {announced}"), Method::PUT), routes[3]);
    assert_eq!(preflight(&format!("OPTIONS h /v/1 {announced}"), Method::GET), "405: PUT");
    assert_eq!(preflight("OPTIONS h /none", Method::GET), "404");
}

#[test]
fn a_route_that_cannot_be_compiled_is_named() {
    let refused = |line: &str| {
        let routes = [(route("/fine"), ()), (route(line), ())];
        let error = Table::compile(routes).expect_err(line);
        assert_eq!(error.route, 1);
        error.cause
    };
    assert!(matches!(refused("~("), Cause::Regex(_)));
    assert!(matches!(refused("/x x-a~("), Cause::Regex(_)));
    assert!(matches!(refused("/x ?a~("), Cause::Regex(_)));
    assert!(matches!(refused("/x/{a}b"), Cause::Braces));
    assert!(matches!(refused("/x/{a}*"), Cause::Braces));
    assert!(matches!(refused("a..b /x"), Cause::Host(_)));
    let methods: Vec<String> = (0..60).map(|number| format!("M{number}")).collect();
    assert!(matches!(refused(&methods.join(",")), Cause::TooManyMethods));
}

#[test]
fn an_empty_table_and_a_foreign_path_find_nothing() {
    let empty: Table<()> = Table::compile([]).expect("no routes");
    assert!(empty.is_empty());
    assert_eq!(empty.find(&Request::new("GET h /").query()), Found::None);
    let all = table(&["/*"]);
    assert_eq!(outcome(&all, all.find(&Request::new("OPTIONS h *").query())), "404");
}
