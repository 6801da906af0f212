//! The real resolver against a name server in this process: what goes over the wire, and back.

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{RData, RecordType};

use super::name_server::{NameServer, Reply, TTL, a, name};
use super::*;
use crate::config::DnsSource;

#[tokio::test]
async fn ipv4_comes_first_and_ipv6_only_where_there_is_none() {
    let server = NameServer::start().await;
    let v6 = Reply::Records(vec![RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))]);
    server.set("both.internal.", RecordType::A, Reply::Records(vec![a(1), a(2)]));
    server.set("both.internal.", RecordType::AAAA, v6.clone());
    assert_eq!(server.addresses("both.internal").await, Ok(vec!["127.0.0.1".into(), "127.0.0.2".into()]));

    for no_v4 in
        [Reply::NoData { soa: true }, Reply::NoData { soa: false }, Reply::Code(ResponseCode::NXDomain)]
    {
        server.set("six.internal.", RecordType::A, no_v4);
        server.set("six.internal.", RecordType::AAAA, v6.clone());
        assert_eq!(server.addresses("six.internal").await, Ok(vec!["::1".into()]));
    }

    server.set(
        "alias.internal.",
        RecordType::A,
        Reply::Records(vec![RData::CNAME(CNAME(name("both.internal.")))]),
    );
    assert_eq!(server.addresses("alias.internal").await.map(|found| found.len()), Ok(2));
    let answer = server.resolver.addresses("alias.internal").await.expect("two addresses");
    assert_eq!(answer.ttl, Some(TTL), "that of all records");
}

#[tokio::test]
async fn no_such_records_and_no_answer_are_told_apart() {
    let server = NameServer::start().await;
    let both = |reply: Reply| {
        server.set("users.internal.", RecordType::A, reply.clone());
        server.set("users.internal.", RecordType::AAAA, reply);
    };
    both(Reply::NoData { soa: true });
    assert_eq!(server.addresses("users.internal").await, Ok(vec![]));
    both(Reply::NoData { soa: false });
    assert_eq!(server.addresses("users.internal").await, Err(ResolveError::Inconclusive));
    both(Reply::Code(ResponseCode::NXDomain));
    assert_eq!(server.addresses("users.internal").await, Err(ResolveError::NoSuchName));
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        both(Reply::Code(code));
        assert!(
            matches!(server.addresses("users.internal").await, Err(ResolveError::Refused(_))),
            "{code:?}"
        );
    }
    both(Reply::Silence);
    let silent = server.addresses("users.internal").await;
    assert!(silent.is_err(), "{silent:?}");
    assert!(server.addresses("no name at all").await.is_err());
    assert!(server.addresses(&"long.".repeat(60)).await.is_err());
}

#[tokio::test]
async fn answers_are_not_cached_and_localhost_needs_no_server() {
    let server = NameServer::start().await;
    server.set("users.internal.", RecordType::A, Reply::Records(vec![a(1)]));
    assert_eq!(server.addresses("users.internal").await, Ok(vec!["127.0.0.1".into()]));
    server.set("users.internal.", RecordType::A, Reply::Records(vec![a(2)]));
    assert_eq!(server.addresses("users.internal").await, Ok(vec!["127.0.0.2".into()]));
    assert_eq!(server.addresses("localhost").await, Ok(vec!["127.0.0.1".into()]));
}

#[tokio::test]
async fn a_dns_source_follows_srv_records_on_the_wire() {
    let server = NameServer::start().await;
    let srv = |weight, port, target| RData::SRV(SRV::new(0, weight, port, name(target)));
    server.set(
        "_http._tcp.users.internal.",
        RecordType::SRV,
        Reply::Records(vec![srv(5, 8001, "a.internal."), srv(0, 8002, "b.internal.")]),
    );
    server.set("a.internal.", RecordType::A, Reply::Records(vec![a(1)]));
    server.set("b.internal.", RecordType::A, Reply::Records(vec![a(2)]));
    let source = InstanceSource::Dns(DnsSource {
        name: at("_http._tcp.users.internal".into()),
        port: None,
        refresh: Duration::from_millis(20),
        srv: true,
    });
    let sink = Sink::new();
    let _running = start(source, &sink, server.resolver.clone());
    sink.until_set(&["127.0.0.1:8001*5", "127.0.0.2:8002*1"]).await;

    server.set("_http._tcp.users.internal.", RecordType::SRV, Reply::Code(ResponseCode::ServFail));
    sink.until("the failure was not told", |said| !said.faults.is_empty()).await;
    assert_eq!(sink.said().sets.len(), 1);
    server.set("_http._tcp.users.internal.", RecordType::SRV, Reply::NoData { soa: true });
    sink.until_set(&[]).await;
}

#[tokio::test]
async fn a_dns_source_survives_its_name_server() {
    let server = NameServer::start().await;
    server.set("users.internal.", RecordType::A, Reply::Records(vec![a(1), a(2)]));
    let source = InstanceSource::Dns(DnsSource {
        name: at("users.internal".into()),
        port: Some(8001),
        refresh: Duration::from_millis(20),
        srv: false,
    });
    let sink = Sink::new();
    let _running = start(source, &sink, server.resolver.clone());
    sink.until_set(&["127.0.0.1:8001*1", "127.0.0.2:8001*1"]).await;
    server.set("users.internal.", RecordType::A, Reply::Silence);
    sink.until("the silence was not told", |said| !said.faults.is_empty()).await;
    assert_eq!(sink.said().sets.len(), 1);
    server.set("users.internal.", RecordType::A, Reply::Records(vec![a(3)]));
    sink.until_set(&["127.0.0.3:8001*1"]).await;
    assert_eq!(sink.said().faults.last(), Some(&None));
}
