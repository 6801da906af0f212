//! Items that wait for others, and the values that they take from them.

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{answers, client, echo, echoed, gateway, held_echo, reasons, send, statuses};
use crate::support::origin::Seen;
use crate::support::{Origin, eventually, origin};

const USER: &str = r#"{"id":12345678901234567890,"name":"a\"b é","path":"a/b","tags":[ 1.0 ],"none":null,"empty":"","up":"..","line":"a\nb"}"#;

/// Answers `/api/user` with [`USER`], everything else with what it saw.
async fn user() -> Origin {
    Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/api/user" => Response::builder()
            .status(201)
            .header("content-type", "application/json")
            .header("location", "/api/users/7")
            .body(Full::from(USER))
            .expect("constants"),
        "/api/text" => Response::new(Full::from("plain")),
        _ => echoed(seen),
    })
    .await
}

#[tokio::test]
async fn an_item_takes_values_of_another_and_waits_for_it() {
    let origin = user().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let answers = send(
        &gateway,
        json!([
            { "path": "/api/{user.body.id}/{user.body.name}?tag={user.body.tags[0]}&p={user.body.path}&s={user.status}&e={user.body.empty}",
              "headers": { "x-user": "<{user.headers.Location}> {{{text.body}}}" } },
            { "id": "user", "path": "/api/user" },
            { "path": "/api/made", "method": "POST", "body_template":
              { "id": "{user.body.id}", "all": "{user.body.tags}", "none": "{user.body.none}", "note": "it is {user.body.name}, {{x}}",
                "status": "{user.status}", "at": "{user.headers.location}", "{user.body.id}": 1, "fixed": [1, "x"] } },
            { "id": "text", "path": "/api/text" },
        ]),
    )
    .await;
    assert_eq!(statuses(&answers), [200, 201, 200, 200]);
    assert_eq!(
        answers[0]["body"]["target"],
        "/api/12345678901234567890/a%22b%20%C3%A9?tag=1.0&p=a%2Fb&s=201&e="
    );
    let made = "{\"all\":[ 1.0 ],\"at\":\"/api/users/7\",\"fixed\":[1,\"x\"],\"id\":12345678901234567890,\"none\":null,\
        \"note\":\"it is a\\\"b é, {x}\",\"status\":201,\"{user.body.id}\":1}";
    let sent = answers[2]["body"]["body"].as_str().expect("a text");
    assert_eq!(sent, made);
    let seen = origin.seen();
    let first = seen.iter().find(|seen| seen.target.contains("12345678901234567890")).expect("it was asked");
    assert_eq!(first.header("x-user"), Some("</api/users/7> {plain}"));
}

#[tokio::test]
async fn what_waits_for_nothing_begins_at_once_and_the_rest_in_turn() {
    let (origin, gate) = held_echo().await;
    let gateway = gateway(&origin.url(), "concurrency: 2, timeout: 60s", "", "");
    let targets = || origin.seen().into_iter().map(|seen| seen.target).collect::<Vec<_>>();
    let begun = async |count: usize| {
        eventually("so many have come through", || async { (origin.count() == count).then_some(()) }).await;
    };
    let post = |batch: Value| {
        let client = client(&gateway);
        tokio::spawn(async move { answers(&client.post("/batch", batch.to_string()).await) })
    };
    let request = post(json!([
        { "path": "/api/last", "after": ["c", "b"] }, { "id": "a", "path": "/api/a" },
        { "id": "b", "path": "/api/b" }, { "id": "c", "path": "/api/c", "after": "a" },
    ]));
    // Two at the same time: one by one they would never be two.
    begun(2).await;
    let mut first = targets();
    first.sort();
    assert_eq!(first, ["/api/a", "/api/b"]);
    gate.add_permits(2);
    begun(3).await;
    assert_eq!(targets()[2], "/api/c");
    gate.add_permits(1);
    begun(4).await;
    assert_eq!(targets()[3], "/api/last");
    gate.add_permits(1);
    let answered = request.await.expect("it ends");
    let order: Vec<_> = answered.iter().map(|answer| answer["body"]["target"].clone()).collect();
    assert_eq!(order, ["/api/last", "/api/a", "/api/b", "/api/c"]);

    // One behind the other, whoever is ready.
    let items: Vec<_> = (0..3).map(|n| json!({ "path": format!("/api/{n}") })).collect();
    let client = client(&gateway);
    let batch = json!({ "requests": items, "sequential": true }).to_string();
    let request = tokio::spawn(async move { client.post("/batch", batch).await.json() });
    for n in 0..3 {
        begun(5 + n).await;
        assert_eq!(targets()[4 + n], format!("/api/{n}"));
        gate.add_permits(1);
    }
    assert_eq!(request.await.expect("it ends")["responses"][2]["status"], 200);
}

#[tokio::test]
async fn who_waits_for_what_there_is_not_is_told() {
    let origin = user().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let answers = send(
        &gateway,
        json!([
            { "path": "/api/{nobody.body.id}" },
            { "path": "/api/a", "after": ["a b"] },
            { "id": "me", "path": "/api/{me.body.id}" },
            { "id": "x", "path": "/api/x", "after": ["y"] },
            { "id": "y", "path": "/api/x", "headers": { "a": "{x.status}" } },
            { "path": "/api/behind", "after": ["x"] },
            { "id": "failed", "path": "/api/status/404" },
            { "id": "second", "path": "/api/{failed.body.id}" },
            { "path": "/api/third", "after": ["second"] },
            { "path": "/api/{user}" },
            { "path": "/api/{user.bodyid}" },
            { "path": "/api/{user.body.}" },
            { "path": "/api/{user.body[x]}" },
            { "path": "/api/{user.headers.a b}" },
            { "path": "/api/}" },
            { "path": "/api/{user.body" },
            { "id": "user", "path": "/api/user" },
            { "path": "/api/good", "after": ["user"] },
        ]),
    )
    .await;
    assert_eq!(
        reasons(&answers),
        [
            "batch_unknown_item",
            "batch_unknown_item",
            "batch_cycle",
            "batch_cycle",
            "batch_cycle",
            "batch_dependency_failed",
            "-",
            "batch_dependency_failed",
            "batch_dependency_failed",
            "batch_item_invalid",
            "batch_item_invalid",
            "batch_item_invalid",
            "batch_item_invalid",
            "batch_item_invalid",
            "batch_item_invalid",
            "batch_item_invalid",
            "-",
            "-",
        ]
    );
    assert_eq!((&answers[5]["status"], &answers[0]["status"]), (&json!(424), &json!(400)));
    assert_eq!(answers[0]["body"]["detail"], "no item of this batch has the id nobody");
    assert_eq!(answers[7]["body"]["detail"], "the item failed, which this one waits for, has failed");
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_failure_ends_a_sequence() {
    let origin = echo().await;
    let gateway = gateway(&origin.url(), "", "", "");
    let batch = json!({ "sequential": true, "requests": [
        { "path": "/api/a" }, { "path": "/api/status/500" }, { "path": "/api/b" }, { "path": "/api/c" } ] });
    let reply = client(&gateway).post("/batch", batch.to_string()).await;
    let answers = reply.json()["responses"].as_array().expect("a list").clone();
    assert_eq!(statuses(&answers), [200, 500, 424, 424]);
    assert_eq!(answers[2]["body"]["detail"], "the item number 2, which this one waits for, has failed");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_value_that_is_not_there_or_would_lead_elsewhere_is_none() {
    let origin = user().await;
    let gateway = gateway(&origin.url(), "max_items: 30", "", "");
    let paths = [
        "/api/{user.body.nobody}",
        "/api/{user.body.none}",
        "/api/{user.body.tags}",
        "/api/{user.body.tags[7]}",
        "/api/{user.body.empty}",
        "/api/{user.body.up}",
        "/api/{user.body.up}/x",
        "/api/{user.headers.nobody}",
        "/api/{user.headers.set-cookie}",
        "/api/{text.body.id}",
        "/api/{empty.body}",
    ];
    let mut items = vec![
        json!({ "id": "user", "path": "/api/user" }),
        json!({ "id": "text", "path": "/api/text" }),
        json!({ "id": "empty", "path": "/api/status/204" }),
        json!({ "path": "/api/a", "headers": { "x-a": "{user.body.line}" } }),
        json!({ "path": "/api/a", "body_template": ["{user.body.nobody}"] }),
    ];
    items.extend(paths.iter().map(|path| json!({ "path": path })));
    let answers = send(&gateway, json!(items)).await;
    for (answer, item) in answers.iter().zip(&items).skip(3) {
        assert_eq!(
            (&answer["status"], &answer["body"]["code"]),
            (&json!(424), &json!("batch_missing_value")),
            "{item}"
        );
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn values_are_looked_for_so_often_and_become_so_large_only() {
    let large = format!("\"{}\"", "x".repeat(60_000));
    let origin = Origin::start(move |_| origin::json(large.clone())).await;
    let gateway = gateway(&origin.url(), "max_body: 100KiB, max_answer: 100KiB", "", "");
    let times = |count: usize| "{a.body}".repeat(count);
    let answers = send(
        &gateway,
        json!([
            { "id": "a", "path": "/api/a" },
            { "path": "/api/b", "body_template": [times(17)] },
            { "path": "/api/b", "body_template": [times(2)] },
            { "path": "/api/b", "body_template": ["{a.body}", "{a.body}"] },
            { "path": "/api/{a.body}" },
            { "path": "/api/b", "headers": { "x-a": "{a.body}" } },
            { "path": "/api/b", "method": "POST", "body_template": [times(1)] },
        ]),
    )
    .await;
    assert_eq!(
        reasons(&answers),
        [
            "-",
            "batch_item_invalid",
            "body_too_large",
            "body_too_large",
            "uri_too_long",
            "headers_too_large",
            "-"
        ]
    );
    assert_eq!(origin.count(), 2);
}
