//! What is made of the results: a page, a verdict, a comparison, a search.

use crate::loadtest::loadtest_in;
use crate::support::{Gateway, Origin};

/// What opens is closed, in the right order; void elements and the doctype aside.
fn is_well_formed(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} has no end"));
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).expect("a name");
        match tag {
            _ if tag.starts_with(['!', '?']) || tag.ends_with('/') || name == "meta" => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}>"),
            _ => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
}

#[tokio::test]
async fn the_report_is_one_page_for_every_screen() {
    let gateway = Gateway::start(
        "rate_limits: { few: { key: route, rate: 1/h, burst: 4 } }\n\
         routes: [{ name: all, match: { prefix: / }, rate_limits: [few], respond: { text: pong } }]\n",
    );
    let scenario = format!(
        "target: http://{}\nrequests:\n\
         - {{ name: '<script>alert(\"1\")</script>', path: '/&amp;' }}\n- {{ name: other, path: / }}\n",
        gateway.http()
    );
    std::fs::write(gateway.file("s.yaml"), scenario).unwrap();
    let arguments = ["--scenario", "s.yaml", "--requests", "40", "--rate", "400", "--html", "report.html"];
    let ran = loadtest_in(gateway.path(), &arguments).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let page = std::fs::read_to_string(gateway.file("report.html")).unwrap();
    is_well_formed(&page);
    assert!(page.contains("<meta name=\"viewport\" content=\"width=device-width"), "{page}");
    assert!(page.contains("default-src 'none'"), "{page}");
    for needs_others in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(needs_others), "{needs_others}");
    }
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"), "{page}");
    assert_eq!(page.matches("<svg ").count(), 3);
    assert!(page.contains("429 × ") && page.contains("rate_limited × ") && !page.contains("NaN"), "{page}");
    let ran =
        loadtest_in(gateway.path(), &["--scenario", "s.yaml", "--requests", "1", "--html", "no/such/r.html"])
            .await;
    assert!(ran.code == 1 && ran.err.contains("no/such/r.html can't be written"), "{}", ran.err);
}

#[tokio::test]
async fn an_objective_decides_the_exit_code() {
    let good = Origin::text("hello").await;
    let bad = Origin::status(503).await;
    let directory = tempfile::tempdir().unwrap();
    for (url, slo, code, words) in [
        (good.url(), "p50=10s,errors=50%", 0, "p50=10s,errors=50% holds: p50 "),
        (good.url(), "p50=10s,errors=0.1%", 0, "holds, as far as so few requests show"),
        (bad.url(), "errors=50%", 1, "errors=50% fails: 60 errors"),
    ] {
        let ran = loadtest_in(directory.path(), &[&url, "--requests", "60", "--slo", slo]).await;
        assert!(ran.code == code && ran.out.contains(words), "{slo}: {} {}{}", ran.code, ran.out, ran.err);
    }
}

#[tokio::test]
async fn a_change_for_the_worse_decides_it_too() {
    let good = Origin::text("hello").await;
    let bad = Origin::status(503).await;
    let directory = tempfile::tempdir().unwrap();
    let before = loadtest_in(directory.path(), &[&good.url(), "--requests", "200", "--json"]).await;
    std::fs::write(directory.path().join("before.json"), &before.out).unwrap();
    let arguments = ["--requests", "200", "--accept-status", "2xx", "--compare", "before.json", "--json"];
    let ran = loadtest_in(directory.path(), &[&[good.url().as_str()], &arguments[..]].concat()).await;
    let errors = |told: &serde_json::Value| {
        let rows = told["comparison"]["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == "errors").unwrap()["change"].clone()
    };
    assert_eq!(errors(&ran.json()), "same");
    let ran = loadtest_in(directory.path(), &[&[bad.url().as_str()], &arguments[..]].concat()).await;
    assert_eq!((ran.code, errors(&ran.json())), (1, "worse".into()));
    assert!(ran.err.contains("WORSE"), "{}", ran.err);
    for (text, told) in [("{}", "not what `gatehouse loadtest --json` writes"), ("", "--json")] {
        std::fs::write(directory.path().join("before.json"), text).unwrap();
        let sent = good.count();
        let ran = loadtest_in(directory.path(), &[&[good.url().as_str()], &arguments[..]].concat()).await;
        assert!(ran.code == 1 && ran.err.contains(told), "{}", ran.err);
        assert_eq!(good.count(), sent, "nothing is sent before the file is read");
    }
}

#[tokio::test]
async fn a_search_ends_though_nothing_holds() {
    let bad = Origin::status(503).await;
    let url = bad.url();
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        &url,
        "--find-max",
        "--slo",
        "errors=1%",
        "--rate",
        "40",
        "--step",
        "100ms",
        "--json",
        "--html",
        "r.html",
    ];
    let ran = loadtest_in(directory.path(), &arguments).await;
    let told = ran.json();
    assert_eq!(
        (ran.code, &told["found"]["rate"], &told["found"]["fails_at"]),
        (1, &().into(), &1.0.into()),
        "{told}"
    );
    let steps = told["found"]["steps"].as_array().unwrap();
    // 40, 20, 10, 5, 2.5, 1.25, 1.
    assert!(steps.len() == 7 && steps.iter().all(|step| step["holds"] == false), "{told}");
    assert!(ran.err.contains("40/s fails") && ran.err.contains("no rate holds errors=1%"), "{}", ran.err);
    let page = std::fs::read_to_string(directory.path().join("r.html")).unwrap();
    is_well_formed(&page);
    assert!(page.contains("The highest rate"));
}

/// How much a policy costs is the machine's business; that it is measured, with all requests answered, is ours.
#[tokio::test]
async fn what_each_policy_costs_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = "listeners: [{ name: http, bind: 127.0.0.1:8000 }]
services: { users: { instances: ['http://127.0.0.1:1'] } }
authenticators: { shop: { jwt: { algorithms: [HS256], keys: [{ secret: '${SHOP_SECRET:-a secret of thirty-two bytes, or so}' }] } } }
rate_limits: { few: { key: 'claim:sub', rate: 1/h } }
routes:
  - name: users
    match: { prefix: /users }
    authenticate: { with: [shop] }
    rate_limits: [few]
    forward: { service: users }
  - { name: plain, match: { path: /plain }, forward: { service: users } }
";
    std::fs::write(directory.path().join("gateway.yaml"), configuration).unwrap();
    let ran =
        loadtest_in(directory.path(), &["-c", "gateway.yaml", "--cost", "--step", "50ms", "--json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let told = ran.json();
    // The other route has no policy.
    assert_eq!(
        (told["routes"].as_array().unwrap().len(), &told["routes"][0]["route"]),
        (1, &"users".into()),
        "{told}"
    );
    let variants = told["routes"][0]["variants"].as_array().unwrap();
    let names: Vec<&str> = variants.iter().map(|variant| variant["variant"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["as it is", "without rate_limits", "without authenticate, and what needs it", "without any"]
    );
    for variant in variants {
        assert_eq!(variant["errors"], 0, "{variant} {}", ran.err);
        assert!(
            variant["requests"].as_u64().unwrap() > 0
                && variant["processor"]["median"].as_f64().unwrap() > 0.0
        );
        assert_eq!(variant["saved_processor"].is_null(), variant["variant"] == "as it is");
    }
    assert!(ran.err.contains("without authenticate"), "{}", ran.err);
    let ran = loadtest_in(directory.path(), &["-c", "gateway.yaml", "--cost", "--route", "plain"]).await;
    assert!(ran.code == 0 && ran.out.is_empty() && ran.err.contains("no route has a policy"), "{}", ran.err);
}
