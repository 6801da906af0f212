//! The system's own files, against name servers in this process: which names are asked for, where, and what
//! the answers on the way mean.

use std::net::Ipv4Addr;
use std::path::Path;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{AAAA, SRV};
use hickory_resolver::proto::rr::{RData, RecordType};

use super::name_server::{NameServer, Reply, a, addresses, name};
use super::*;
use crate::discovery::SystemResolver;
use crate::discovery::resolver::Files;

const NONE: Reply = Reply::NoData { soa: true };

/// A resolver with these files. The servers have the port of the first.
fn resolver(directory: &Path, port: u16, resolv_conf: &str, hosts: &str) -> SystemResolver {
    let files = Files { resolv_conf: directory.join("resolv.conf"), hosts: directory.join("hosts"), port };
    std::fs::write(&files.resolv_conf, resolv_conf).expect("written");
    std::fs::write(&files.hosts, hosts).expect("written");
    SystemResolver::of(files)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The names that were asked for IPv4 addresses, in their order.
fn names(server: &NameServer) -> Vec<String> {
    let asked = server.asked();
    let names = asked.iter().filter_map(|asked| asked.strip_prefix("udp ")?.strip_suffix(" A"));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let server = NameServer::start().await;
    let many: Vec<_> = (1..=100).map(a).collect();
    server.set("users.internal.", RecordType::A, Reply::TooManyForUdp(many));
    assert_eq!(server.addresses("users.internal").await.map(|found| found.len()), Ok(100));
    assert_eq!(server.asked(), ["udp users.internal. A", "tcp users.internal. A"]);
}

#[tokio::test]
async fn what_is_truncated_and_not_to_be_had_whole_is_no_answer() {
    let server = NameServer::start().await;
    server.set("users.internal.", RecordType::A, Reply::TooManyForUdp(vec![a(1), a(2)]));
    let directory = directory();
    // The address of this server, at which nobody listens for TCP.
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let port = udp.local_addr().expect("bound").port();
    let to = server.address;
    let _relay = Running(tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = udp.recv_from(&mut buffer).await.expect("received");
            let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            upstream.send_to(&buffer[..length], to).await.expect("sent");
            let length = upstream.recv(&mut buffer).await.expect("received");
            udp.send_to(&buffer[..length], peer).await.expect("sent");
        }
    }));
    let resolver = resolver(directory.path(), port, "nameserver 127.0.0.1\n", "");
    let answer = addresses(&resolver, "users.internal").await;
    assert!(answer.is_err(), "one of two was taken for all: {answer:?}");
}

#[tokio::test]
async fn names_are_searched_for_as_resolv_conf_says() {
    let server = NameServer::start().await;
    let directory = directory();
    let search = "search a.internal b.internal\noptions ndots:2\nnameserver 127.0.0.1\n";
    let resolver = resolver(directory.path(), server.address.port(), search, "");
    for (name, asked) in [
        ("users", vec!["users.a.internal.", "users.b.internal.", "users."]),
        ("users.shop", vec!["users.shop.a.internal.", "users.shop.b.internal.", "users.shop."]),
        ("users.shop.x", vec!["users.shop.x.", "users.shop.x.a.internal.", "users.shop.x.b.internal."]),
        ("users.", vec!["users."]),
    ] {
        let before = names(&server).len();
        assert_eq!(addresses(&resolver, name).await, Err(ResolveError::NoSuchName));
        assert_eq!(names(&server)[before..], asked, "{name}");
    }
    server.set("users.b.internal.", RecordType::A, Reply::Records(vec![a(7)]));
    assert_eq!(addresses(&resolver, "users").await, Ok(vec!["127.0.0.7".into()]));
    server.set("_http._tcp.users.a.internal.", RecordType::SRV, NONE);
    assert_eq!(resolver.srv("_http._tcp.users").await, Err(ResolveError::NoSuchName), "the first counts");
    let srv = SRV::new(0, 1, 80, name("users.b.internal."));
    server.set("_http._tcp.users.b.internal.", RecordType::SRV, Reply::Records(vec![RData::SRV(srv)]));
    assert_eq!(resolver.srv("_http._tcp.users").await.map(|answer| answer.records.len()), Ok(1));
    server.set("_http._tcp.users.b.internal.", RecordType::SRV, NONE);
    let answer = resolver.srv("_http._tcp.users").await;
    assert_eq!(answer.map(|answer| answer.records), Ok(vec![]), "it had some");
}

#[tokio::test]
async fn what_a_search_meets_decides_what_none_means() {
    let server = NameServer::start().await;
    let directory = directory();
    let search = "search a.internal b.internal\nnameserver 127.0.0.1\n";
    let resolver = resolver(directory.path(), server.address.port(), search, "");
    let [first, second] = ["users.a.internal.", "users.b.internal."];
    let nowhere = Reply::Code(ResponseCode::NXDomain);
    let found = |address: &str| Ok(vec![address.to_owned()]);

    server.set_both(first, NONE);
    assert_eq!(addresses(&resolver, "users").await, Ok(vec![]), "its own zone says that there are none");
    server.set_both(second, NONE);
    server.set_both(first, nowhere.clone());
    let other = addresses(&resolver, "users").await;
    assert_eq!(other, Err(ResolveError::NoSuchName), "another zone can't say that");

    server.set(second, RecordType::A, Reply::Records(vec![a(2)]));
    assert_eq!(addresses(&resolver, "users").await, found("127.0.0.2"));
    server.set(second, RecordType::A, NONE);
    assert_eq!(addresses(&resolver, "users").await, Ok(vec![]), "but the zone where it was found can");
    for failing in [Reply::Code(ResponseCode::ServFail), Reply::Code(ResponseCode::Refused), Reply::Silence] {
        server.set_both(first, failing);
        let answer = addresses(&resolver, "users").await;
        assert!(
            !matches!(answer, Ok(_) | Err(ResolveError::NoSuchName)),
            "another host by that name is not taken for it: {answer:?}"
        );
    }

    // IPv6 of the first comes before IPv4 of the second.
    server.set(first, RecordType::A, NONE);
    server.set(first, RecordType::AAAA, Reply::Records(vec![RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))]));
    assert_eq!(addresses(&resolver, "users").await, found("::1"));
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let server = NameServer::start().await;
    let directory = directory();
    let hosts = "10.0.0.1 users Users.internal # ours\n10.0.0.2 users\n::7 six\n";
    let search = "search internal\nnameserver 127.0.0.1\n";
    let resolver = resolver(directory.path(), server.address.port(), search, hosts);
    for name in ["users", "USERS", "users."] {
        assert_eq!(
            addresses(&resolver, name).await,
            Ok(vec!["10.0.0.1".into(), "10.0.0.2".into()]),
            "{name}"
        );
    }
    assert_eq!(addresses(&resolver, "users.internal").await, Ok(vec!["10.0.0.1".into()]));
    assert_eq!(addresses(&resolver, "six").await, Ok(vec!["::7".into()]));
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_server_that_is_silent_hides_no_other() {
    let silent = NameServer::start().await;
    let port = silent.address.port();
    let well = NameServer::start_at(Ipv4Addr::new(127, 0, 0, 2), port).await;
    silent.set_both("users.internal.", Reply::Silence);
    well.set("users.internal.", RecordType::A, Reply::Records(vec![a(1)]));
    let directory = directory();
    // Nobody is at 127.0.0.3.
    for order in [["1", "2"], ["2", "1"], ["3", "2"]] {
        let servers = order.map(|last| format!("nameserver 127.0.0.{last}\n")).concat();
        let resolver = resolver(directory.path(), port, &servers, "");
        assert_eq!(addresses(&resolver, "users.internal").await, Ok(vec!["127.0.0.1".into()]), "{order:?}");
    }
}

#[tokio::test]
async fn garbage_is_no_answer() {
    let server = NameServer::start().await;
    server.set_both("users.internal.", Reply::Garbage);
    let answer = server.addresses("users.internal").await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_read_again_and_broken_ones_are_not() {
    let directory = directory();
    let resolver = resolver(directory.path(), 1, "", "10.0.0.1 users\n");
    let look = Duration::from_secs(5);
    let at = async |expected: &str| {
        tokio::time::sleep(look).await;
        assert_eq!(addresses(&resolver, "users").await, Ok(vec![expected.into()]));
    };
    at("10.0.0.1").await;
    std::fs::write(directory.path().join("hosts"), "10.0.0.22 users\n").expect("written");
    at("10.0.0.22").await;
    let elsewhere = "nameserver 127.0.0.1\nsearch internal\n";
    std::fs::write(directory.path().join("resolv.conf"), elsewhere).expect("written");
    std::fs::write(directory.path().join("hosts"), "10.0.0.3 users.internal\n").expect("written");
    tokio::time::sleep(look).await;
    assert!(addresses(&resolver, "users").await.is_err(), "its name server is not there");
    assert_eq!(addresses(&resolver, "users.internal").await, Ok(vec!["10.0.0.3".into()]));
    for broken in [Some("# nothing\n"), None] {
        match broken {
            Some(text) => std::fs::write(directory.path().join("resolv.conf"), text).expect("written"),
            None => std::fs::remove_file(directory.path().join("resolv.conf")).expect("it was there"),
        }
        tokio::time::sleep(look).await;
        assert_eq!(addresses(&resolver, "users.internal").await, Ok(vec!["10.0.0.3".into()]));
    }
}
