//! A configuration with every key in it loads to what it says.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

use std::path::Path;
use std::time::Duration;

use gatehouse::config::*;
use http::{HeaderName, Method, StatusCode};

fn environment(name: &str) -> Option<String> {
    (name == "REGISTRY_TOKEN").then(|| "a-registry-token".to_owned())
}

fn source(text: &str) -> Source {
    Source { path: "/etc/gatehouse/gateway.yaml".into(), text: text.into() }
}

fn complete() -> Config {
    load_text(include_str!("data/complete.yaml"))
}

fn load_text(text: &str) -> Config {
    let source = source(text);
    match load(&source, &environment) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{}", render(&loaded.warnings, &source, false));
            loaded.config
        }
        Err(problems) => panic!("{}", render(&problems, &source, false)),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn listeners_admin_and_registry() {
    let config = complete();
    assert_eq!(config.workers, Workers::Count(4));
    assert_eq!(config.listeners[0].limits, Limits::default());
    assert_eq!(config.listeners[0].tls, None);
    let https = &config.listeners[1];
    assert_eq!(https.bind.value, "0.0.0.0:8443".parse().unwrap());
    let tls = https.tls.as_ref().unwrap();
    assert_eq!(tls.min_version, TlsVersion::Tls13);
    assert_eq!(*tls.certificates[0].certificate, Path::new("/etc/gatehouse/certs/localhost.crt"));
    assert_eq!(*tls.certificates[1].private_key, Path::new("/etc/tls/other.key"));
    let limits = Limits {
        max_connections: 2000,
        header_timeout: seconds(9),
        idle_timeout: seconds(70),
        max_header_bytes: 16 * 1024,
        max_headers: 50,
        max_uri_bytes: 4096,
        max_streams: 64,
        max_connections_per_client: Some(200),
        connection_rate_per_client: Some(Rate { count: 300, per: seconds(60) }),
        min_upload_rate: 2048,
        min_download_rate: 0,
    };
    assert_eq!(https.limits, limits);
    assert_eq!(config.max_memory, Some(2 << 30));
    let networks: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["127.0.0.0/8", "::1/128", "10.1.2.3/32"]);
    assert_eq!(config.admin.as_ref().unwrap().token, None);
    let registry = config.registry.unwrap();
    assert_eq!(registry.heartbeat_ttl, seconds(20));
    let state_file = registry.state_file.unwrap().value;
    assert_eq!(state_file, Path::new("/etc/gatehouse/state/registry.json"));
    assert_eq!(registry.token.unwrap().expose(), "a-registry-token");
    assert_eq!(config.access_log.output, LogOutput::File("/etc/gatehouse/logs/access.log".into()));
}

#[test]
fn services() {
    let config = complete();
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(
        names,
        ["user-service", "order-service", "billing", "search", "files", "stock", "prices", "reviews"]
    );
    let users = &config.services[0];
    let InstanceSource::Static(instances) = &users.source else { panic!("{:?}", users.source) };
    let instances: Vec<_> = instances.iter().map(|i| (i.authority.as_str(), i.weight)).collect();
    assert_eq!(instances, [("127.0.0.1:8001", 1), ("users.internal:80", 2)]);
    assert_eq!(users.load_balancing, LoadBalancing::LeastRequests);
    let sticky = users.sticky.as_ref().unwrap();
    assert_eq!(sticky.cookie, "at");
    assert_eq!(sticky.secret.as_ref().unwrap().expose(), "a-long-enough-secret");
    assert_eq!(users.slow_start, Some(seconds(40)));
    let range = |from, to| StatusRange { from, to };
    let health = HealthCheck {
        probe: HealthProbe::Http(HttpProbe {
            path: "/health".to_owned(),
            expect_status: vec![range(200, 299)],
            expect_body: Some("\"up\"".to_owned()),
        }),
        jitter: 20,
        interval: seconds(4),
        timeout: Duration::from_millis(500),
        healthy_after: 3,
        unhealthy_after: 4,
        panic_threshold: Some(30),
    };
    assert_eq!(users.health_check, Some(health));
    let outliers = OutlierDetection {
        consecutive_failures: Some(7),
        failure_ratio: Some(25),
        latency: Some(250),
        minimum_requests: 40,
        interval: seconds(5),
        base_ejection_time: seconds(15),
        max_ejection_time: seconds(120),
        max_ejected: 20,
    };
    assert_eq!(users.outlier_detection, Some(outliers));
    let usual = OutlierDetection {
        consecutive_failures: None,
        failure_ratio: Some(30),
        latency: None,
        minimum_requests: 20,
        interval: seconds(10),
        base_ejection_time: seconds(600),
        max_ejection_time: seconds(600),
        max_ejected: 50,
    };
    assert_eq!(config.services[1].outlier_detection, Some(usual));
    let breaker = CircuitBreaker {
        consecutive_failures: 6,
        failure_ratio: Some(40),
        minimum_requests: 30,
        window: seconds(20),
        open_for: seconds(60),
        max_open_for: seconds(300),
        half_open_requests: 2,
        failures: vec![
            FailureKind::ConnectFailure,
            FailureKind::Reset,
            FailureKind::Timeout,
            FailureKind::Status(range(500, 599)),
        ],
    };
    assert_eq!(users.circuit_breaker, breaker);
    let retries = Retries {
        attempts: 1,
        on: vec![FailureKind::ConnectFailure, FailureKind::Status(range(502, 502))],
        methods: vec![Method::GET, Method::HEAD],
        per_attempt_timeout: Some(seconds(2)),
        backoff_base: Duration::from_millis(10),
        backoff_max: seconds(2),
        budget: 10,
        keep_body: 1 << 20,
        buffer_response: 32 << 10,
    };
    assert_eq!(users.retries, retries);
    let (total, silence) = (Some(seconds(40)), None);
    let (connect, tls, response, idle) = (seconds(2), seconds(3), seconds(10), seconds(30));
    let header = Some(HeaderName::from_static("x-timeout-ms"));
    assert_eq!(users.timeouts, Timeouts { connect, tls, response, idle, total, header, silence });
    assert_eq!(users.pool, Pool { max_connections: 100, max_idle: 10, idle_timeout: seconds(50) });
    let hedging = Hedging { after: HedgeAfter::Time(Duration::from_millis(200)), budget: 10 };
    assert_eq!(users.hedging, Some(hedging));
    let by_percentile = Hedging { after: HedgeAfter::Percentile95, budget: 5 };
    assert_eq!(config.services[1].hedging, Some(by_percentile));
    let concurrency = Concurrency {
        max: ConcurrencyLimit::Fixed(500),
        queue: 50,
        queue_timeout: Duration::from_millis(100),
    };
    assert_eq!(users.concurrency, Some(concurrency));
    let adaptive = config.services[1].concurrency.as_ref().unwrap();
    assert_eq!(adaptive.max, ConcurrencyLimit::Adaptive { floor: 2, ceiling: 300 });
    assert_eq!((adaptive.queue, adaptive.queue_timeout), (0, Duration::from_millis(250)));
    let fallback = users.fallback.as_ref().unwrap();
    assert_eq!(fallback.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(&fallback.body[..], br#"{"error":"users are unavailable"}"#);

    let orders = &config.services[1];
    assert_eq!(orders.source, InstanceSource::Registry);
    assert_eq!(orders.load_balancing, LoadBalancing::RoundRobin);
    assert_eq!(orders.circuit_breaker, CircuitBreaker { failure_ratio: None, ..CircuitBreaker::default() });
    assert_eq!(orders.retries, Retries::default());
    assert_eq!(orders.pool, Pool::default());
    let expected = vec![range(204, 204), range(200, 201)];
    let HealthProbe::Http(probe) = &orders.health_check.as_ref().unwrap().probe else { panic!() };
    assert_eq!(probe.path, "/?full=1");
    assert_eq!((&probe.expect_status, &probe.expect_body), (&expected, &None));
    assert_eq!(orders.health_check.as_ref().unwrap().jitter, 10);
    let probe = |service: usize| &config.services[service].health_check.as_ref().unwrap().probe;
    assert_eq!(probe(2), &HealthProbe::Tcp);
    assert_eq!(probe(3), &HealthProbe::Grpc { service: "search.v1.Search".to_owned() });
    assert_eq!(probe(4), &HealthProbe::Grpc { service: String::new() });

    let InstanceSource::Dns(dns) = &config.services[2].source else { panic!() };
    assert_eq!(
        (dns.name.as_str(), dns.port, dns.refresh, dns.srv),
        ("billing.internal", Some(8002), seconds(60), false)
    );
    let InstanceSource::Dns(dns) = &config.services[3].source else { panic!() };
    assert_eq!((dns.port, dns.refresh, dns.srv), (None, seconds(10), true));
    let InstanceSource::File(file) = &config.services[4].source else { panic!() };
    assert_eq!(file.value, Path::new("/etc/gatehouse/instances/files.yaml"));
    assert_eq!(config.services[3].load_balancing, LoadBalancing::PeakEwma);
    let by_cookie = ConsistentHash { key: HashKey::Cookie("session".to_owned()), max_load: Some(150) };
    assert_eq!(config.services[4].load_balancing, LoadBalancing::ConsistentHash(by_cookie));
    let InstanceSource::Etcd(etcd) = &config.services[5].source else { panic!() };
    let endpoints: Vec<String> = etcd.endpoints.iter().map(|endpoint| endpoint.value.to_string()).collect();
    assert_eq!(endpoints, ["http://10.0.0.1:2379/", "https://etcd.internal/"]);
    let login = etcd.login.as_ref().unwrap();
    assert_eq!((&*etcd.prefix, &*login.username, login.password.expose()), ("/stock/", "gw", "pw"));
    let InstanceSource::Consul(consul) = &config.services[6].source else { panic!() };
    assert_eq!((consul.address.value.to_string(), &*consul.service), ("http://[::1]:8501/".into(), "prices"));
    assert_eq!((consul.tag.as_deref(), consul.datacenter.as_deref()), (Some("v2"), Some("dc2")));
    assert!(consul.token.is_none(), "an empty one is none");
    let InstanceSource::SharedRegistry(shared) = &config.services[7].source else { panic!() };
    assert_eq!(shared.address.value.to_string(), "https://registry.internal/");
    assert_eq!(shared.token.as_ref().unwrap().expose(), "a-registry-token");
}

#[test]
fn authenticators_and_rate_limits() {
    let config = complete();
    let jwt = &config.authenticators[0].jwt;
    assert_eq!(jwt.issuer.as_deref(), Some("https://id.example.com/"));
    assert_eq!(jwt.audience, ["shop-api", "other-api"]);
    let algorithms = [JwtAlgorithm::HS256, JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA];
    assert_eq!(jwt.algorithms, algorithms);
    assert_eq!(jwt.leeway, seconds(10));
    let [
        JwtKey::Secret(secret),
        JwtKey::PublicKey(public),
        JwtKey::JwksFile(file),
        JwtKey::JwksUrl { url, refresh },
    ] = jwt.keys.as_slice()
    else {
        panic!("{:?}", jwt.keys)
    };
    assert_eq!(secret.value.expose(), "dev-only-secret-change-me-0123456789");
    assert_eq!(public.value, Path::new("/etc/gatehouse/certs/jwt.pub"));
    assert_eq!(file.value, Path::new("/etc/gatehouse/certs/jwks.json"));
    assert_eq!((url.value.host(), *refresh), (Some("id.example.com"), seconds(300)));
    assert_eq!(jwt.token_from, [TokenSource::Bearer, TokenSource::Cookie("token".to_owned())]);
    let headers: Vec<_> =
        jwt.claim_headers.iter().map(|(claim, name)| (claim.as_str(), name.as_str())).collect();
    assert_eq!(headers, [("sub", "x-user-id"), ("scope", "x-scopes")]);
    let mesh = &config.certificate_authenticators[0];
    assert_eq!(
        (mesh.name.as_str(), mesh.subjects.join(" ")),
        ("mesh", "spiffe://shop/* orders.internal".to_owned())
    );
    assert_eq!(mesh.header.as_ref().map(http::HeaderName::as_str), Some("x-client-name"));
    let small = &config.authenticators[1].jwt;
    assert_eq!((small.leeway, small.audience.as_slice()), (seconds(30), &["one".to_owned()][..]));
    assert_eq!(small.token_from, [TokenSource::Bearer]);

    let client = &config.rate_limits[0];
    assert_eq!(client.rate, Rate { count: 100, per: seconds(1) });
    assert_eq!((client.burst, client.max_keys), (200, 100_000));
    let user = &config.rate_limits[1];
    let header = KeyPart::Header("x-tenant".parse().unwrap());
    assert_eq!(user.key, [KeyPart::Claim("sub".to_owned()), KeyPart::Route, header]);
    assert_eq!(user.rate, Rate { count: 600, per: seconds(60) });
    assert_eq!((user.burst, user.max_keys), (600, 500));
}

#[test]
fn matches_and_policies() {
    let config = complete();
    let defaults = &config.defaults;
    assert_eq!(defaults.rate_limits[0].value, "per-client");
    assert_eq!(defaults.request_id_header, "x-correlation-id");
    assert_eq!(defaults.response_headers.remove, [http::header::SERVER]);
    assert_eq!(defaults.max_body, Some(1 << 20));

    let users = &config.routes[0];
    assert!(matches!(&users.matches.path, PathMatch::Prefix(prefix) if prefix.value == "/gateway/api/users"));
    let hosts = [
        HostPattern::Exact("api.example.com".to_owned()),
        HostPattern::Wildcard("example.com".to_owned()),
        HostPattern::Exact("[::1]".to_owned()),
    ];
    assert_eq!(users.matches.hosts, hosts);
    let exact = |text: &str| ValueMatch::Exact(text.to_owned());
    let headers: Vec<_> =
        users.matches.headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    assert_eq!(
        headers,
        [
            ("x-api-version", exact("2")),
            ("x-kind", ValueMatch::Regex("a|b".to_owned())),
            ("x-debug", ValueMatch::Present(false)),
        ]
    );
    // Numbers keep their digits.
    assert_eq!(users.matches.query[0], ("beta".to_owned(), exact("1.0")));
    let authenticate = users.authenticate.as_ref().unwrap();
    assert_eq!(
        authenticate.with.iter().map(|with| with.as_str()).collect::<Vec<_>>(),
        ["shop", "small", "mesh"]
    );
    assert_eq!(authenticate.methods, [Method::POST]);
    assert_eq!(users.authorize[0].values, ["admin", "editor"]);
    assert_eq!(
        (users.authorize[1].claim.as_str(), users.authorize[1].values.as_slice()),
        ("tenant", &["7".to_owned()][..])
    );
    let cors = users.cors.as_ref().unwrap();
    let origins = vec!["https://shop.example.com".to_owned(), "http://localhost:3000".to_owned()];
    assert_eq!(cors.origins, CorsOrigins::Exact(origins));
    assert_eq!((cors.credentials, cors.max_age), (true, Some(seconds(600))));
    assert_eq!(users.request_headers.set[0].1, "gateway");
    assert!(users.request_headers.set[1].1.is_sensitive());
    assert_eq!((users.max_body, users.encoded_slashes), (Some(64 * 1024), EncodedSlashes::Keep));
    let open = config.routes[1].cors.as_ref().unwrap();
    assert_eq!(open.origins, CorsOrigins::Any);
    assert!(open.methods.contains(&Method::DELETE) && !open.credentials);
}

#[test]
fn actions() {
    let config = complete();
    let action = |name: &str| &config.routes.iter().find(|route| route.name.value == name).unwrap().action;
    let literal = |text: &str| TemplatePiece::Literal(text.to_owned());
    let Action::Forward(users) = action("users") else { panic!() };
    assert_eq!(users.rewrite, Rewrite::StripPrefix("/gateway".to_owned()));
    assert_eq!(users.host, HostHeader::Instance);
    let Action::Forward(user) = action("user") else { panic!() };
    let template = Template(vec![literal("/internal/users/"), TemplatePiece::PathParameter("id".to_owned())]);
    assert_eq!(user.rewrite, Rewrite::Template(template));
    assert_eq!(user.host, HostHeader::Fixed("users.internal".parse().unwrap()));
    let retries = RetriesGiven {
        attempts: Some(0),
        budget: Some(5),
        keep_body: Some(0),
        buffer_response: Some(0),
        ..RetriesGiven::default()
    };
    let overrides = user.overrides.as_ref().unwrap();
    assert_eq!(overrides.retries, retries);
    let timeouts = TimeoutsGiven {
        total: Some(seconds(5)),
        header: Some(HeaderName::from_static("x-left-ms")),
        silence: Some(Some(Duration::from_millis(250))),
        ..TimeoutsGiven::default()
    };
    assert_eq!(overrides.timeouts, timeouts);
    let hedging = Hedging { after: HedgeAfter::Time(seconds(1)), budget: 1 };
    assert_eq!(overrides.hedging, Some(hedging));
    let stale = StaleIfError { keep_for: seconds(3600), max_bytes: 1 << 20 };
    assert_eq!((user.stale_if_error, users.stale_if_error), (Some(stale), None));
    let breaker = BreakerGiven {
        consecutive_failures: Some(7),
        failure_ratio: Some(None),
        minimum_requests: Some(9),
        window: Some(seconds(4)),
        open_for: Some(seconds(1)),
        max_open_for: Some(seconds(60)),
        half_open_requests: Some(4),
        failures: Some(vec![FailureKind::Status(StatusRange { from: 500, to: 599 })]),
    };
    assert_eq!(overrides.circuit_breaker, breaker);
    assert!(breaker.is_own());
    let usual = CircuitBreaker::default();
    let few = BreakerGiven { failures: breaker.failures.clone(), ..BreakerGiven::default() };
    assert!(!few.is_own() && few.over(&usual).consecutive_failures == 5);
    let short = BreakerGiven { max_open_for: Some(seconds(2)), ..BreakerGiven::default() }.over(&usual);
    assert_eq!((short.open_for, short.max_open_for), (seconds(2), seconds(2)));
    let long = BreakerGiven { open_for: Some(seconds(900)), ..BreakerGiven::default() }.over(&usual);
    assert_eq!(long.max_open_for, seconds(900));
    let usual = Retries::default();
    assert_eq!(
        retries.over(&usual),
        Retries { attempts: 0, budget: 5, keep_body: 0, buffer_response: 0, ..usual }
    );
    assert_eq!(users.overrides, None);

    let Action::Aggregate(aggregate) = action("user-orders") else { panic!() };
    assert_eq!(aggregate.timeout, seconds(2));
    let [user, shop, orders, _] = aggregate.parts.as_slice() else { panic!() };
    assert_eq!((user.name.as_str(), user.required), ("user", true));
    assert_eq!(user.fallback, PartFallback::Value("null".into()));
    let stale = StaleIfError { keep_for: seconds(600), max_bytes: 1 << 20 };
    let kept = |part: &Part| part.call().and_then(|call| call.stale_if_error);
    assert_eq!((kept(shop), kept(orders)), (Some(stale), None));
    assert_eq!(orders.fallback, PartFallback::Value("[]".into()));
    assert_eq!((orders.call().unwrap().max_body, user.call().unwrap().max_body), (Some(2 << 20), None));
    assert_eq!(
        orders.call().unwrap().path.0,
        [
            PartPiece::Literal("/api/orders?user_id=".to_owned()),
            PartPiece::Value(ValueOf::Parameter("id".to_owned())),
        ]
    );

    let Action::Redirect(home) = action("old-home") else { panic!() };
    assert_eq!(
        (home.status, home.to.0.as_slice()),
        (StatusCode::MOVED_PERMANENTLY, &[literal("https://www.example.com/")][..])
    );
    let Action::Redirect(user) = action("old-user") else { panic!() };
    assert_eq!(user.status, StatusCode::PERMANENT_REDIRECT);

    let Action::Respond(ping) = action("ping") else { panic!() };
    assert_eq!(ping.status.as_u16(), 203);
    let body = r#"{"status":"ok","list":[1,2.50,"3",true,null,"x y"],"nested":{"a":"7"},"late":7}"#;
    assert_eq!(std::str::from_utf8(&ping.body).unwrap(), body);
    assert_eq!(ping.content_type.as_ref().unwrap(), "application/json");
    let Action::Respond(text) = action("text") else { panic!() };
    assert_eq!((text.status, &text.body[..]), (StatusCode::OK, &b"hello\n"[..]));
    assert_eq!(text.content_type.as_ref().unwrap(), "text/markdown");
    assert_eq!(text.headers.len(), 1);
}

#[test]
fn the_least_configuration_has_the_usual_defaults() {
    let config = load_text("listeners: [{ name: a, bind: 127.0.0.1:0 }]\nroutes: []\n");
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!((config.admin, config.registry), (None, None));
    assert_eq!(config.access_log.output, LogOutput::Stdout);
    assert_eq!(config.defaults.request_id_header, "x-request-id");
    assert_eq!(config.defaults.max_body, None);
}

#[test]
fn aliases_and_merges_repeat_blocks() {
    let config = load_text(
        "listeners: [{ name: a, bind: 127.0.0.1:0 }]
services:
  a: &a
    instances: [http://127.0.0.1:1]
    timeouts: &t { connect: 3s }
  b: { <<: *a, instances: [http://127.0.0.1:2] }
  c: { instances: [http://127.0.0.1:3], timeouts: *t }
routes:
  - { name: a, match: { path: /a }, forward: { service: a } }
  - { name: b, match: { path: /b }, forward: { service: b } }
  - { name: c, match: { path: /c }, forward: { service: c } }
",
    );
    for (service, port) in config.services.iter().zip(1..) {
        assert_eq!(service.timeouts.connect, seconds(3));
        let InstanceSource::Static(instances) = &service.source else { panic!() };
        assert_eq!(instances[0].authority.value, format!("127.0.0.1:{port}"));
    }
}

#[test]
fn equal_texts_are_equal_wherever_they_stand() {
    let moved = format!("\n\n{}", include_str!("data/complete.yaml"));
    assert_eq!(complete(), load_text(&moved));
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", complete());
    for secret in ["a-registry-token", "dev-only", "Bearer inner"] {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn a_service_is_spoken_to_over_tls_by_its_urls_or_by_its_block() {
    let tls = |service: &str| {
        let text = format!(
            "listeners: [{{ name: http, bind: \"127.0.0.1:0\" }}]\nservices: {{ a: {{ {service} }} }}\n\
             routes: [{{ name: a, match: {{ path: / }}, forward: {{ service: a }} }}]\n"
        );
        load_text(&text).services[0].tls.clone()
    };
    assert_eq!(tls("instances: [http://a]"), None);
    for service in [
        "instances: [https://a, { url: https://b, weight: 2 }]",
        "instances: [https://a], tls: true",
        "instances: [https://a], tls: {}",
        "discovery: { dns: { name: a.test, port: 1 } }, tls: {}",
    ] {
        assert_eq!(tls(service), Some(ServiceTls::usual(Span::default())), "{service}");
    }
    let all = tls(
        "instances: [https://a], tls: { server_name: '[::1]', certificate: c.crt, private_key: c.key, min_version: '1.3' }",
    );
    let all = all.expect("it is asked for");
    assert_eq!(
        (all.server_name.as_deref(), all.min_version, all.verify),
        (Some("::1"), TlsVersion::Tls13, true)
    );
    let client = all.client.expect("both files are named");
    assert!(client.certificate.ends_with("c.crt") && client.private_key.ends_with("c.key"));
}
