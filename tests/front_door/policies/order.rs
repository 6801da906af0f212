//! Which of several policies gets to refuse first.

use crate::support::tokens::{hs256, secret_authenticator};
use crate::support::{Client, Gateway};
use serde_json::json;

#[tokio::test]
async fn the_cheap_refusals_come_first() {
    let gateway = Gateway::start(&format!(
        "{}rate_limits:\n\
         \x20 address: {{ key: ip, rate: 1/h, burst: 4 }}\n\
         \x20 subject: {{ key: \"claim:sub\", rate: 1/h, burst: 1 }}\n\
         routes:\n\
         \x20 - name: all\n\
         \x20   match: {{ prefix: / }}\n\
         \x20   max_body: 5B\n\
         \x20   rate_limits: [subject, address]\n\
         \x20   authenticate: {{ with: [shop] }}\n\
         \x20   authorize: {{ claims: {{ role: admin }} }}\n\
         \x20   respond: {{ text: in }}\n",
        secret_authenticator()
    ));
    let nobody = Client::new(gateway.http());
    let user = nobody.clone().bearer(&hs256(json!({})));
    let admin = nobody.clone().bearer(&hs256(json!({ "role": "admin" })));
    // Too large a body is refused before any allowance is taken,
    for _ in 0..6 {
        assert_eq!(nobody.post("/", "much too large").await.status, 413);
    }
    // the address's allowance before the token is looked at,
    assert_eq!(nobody.get("/").await.status, 401);
    // the token before its rights, these before the subject's allowance,
    assert_eq!(user.get("/").await.status, 403);
    let reply = admin.get("/").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"address\";q=4;w=14400, \"subject\";q=1;w=3600"),
        "in the order of the checks"
    );
    // and the subject's own last.
    let reply = admin.get("/").await;
    assert_eq!(reply.status, 429);
    assert!(reply.text().contains("subject"), "{}", reply.text());
    let reply = nobody.get("/").await;
    assert_eq!(reply.status, 429, "four have passed that limit: {}", reply.text());
}
