//! The real resolver against a name server in this process: what goes over the wire, and back.

use std::str::FromStr;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;
use crate::config::DnsSource;
use crate::discovery::SystemResolver;

/// Of all its records.
const TTL: Duration = Duration::from_secs(60);

/// How the server answers a question.
#[derive(Clone)]
enum Reply {
    Records(Vec<RData>),
    /// NOERROR without records, with the zone's SOA or without.
    NoData {
        soa: bool,
    },
    Code(ResponseCode),
    Silence,
}

type Zone = Arc<Mutex<HashMap<(String, RecordType), Reply>>>;

struct NameServer {
    zone: Zone,
    resolver: Arc<SystemResolver>,
    _running: Running,
}

impl NameServer {
    async fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().expect("bound").port();
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![connection]);
        let mut options = ResolverOpts::default();
        // Only silence lasts that long, on however busy a machine.
        options.timeout = Duration::from_secs(2);
        options.attempts = 1;
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_name_servers(vec![server]);
        let resolver = Arc::new(SystemResolver::with_config(config, options));
        let zone = Zone::default();
        let running = Running(tokio::spawn(answer(socket, zone.clone())));
        NameServer { zone, resolver, _running: running }
    }

    fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.lock().unwrap().insert((name.into(), kind), reply);
    }

    async fn addresses(&self, name: &str) -> Result<Vec<String>, ResolveError> {
        Ok(self.resolver.addresses(name).await?.records.iter().map(IpAddr::to_string).collect())
    }
}

async fn answer(socket: UdpSocket, zone: Zone) {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.expect("received");
        let query = Message::from_vec(&buffer[..length]).expect("a query");
        let question = query.queries[0].clone();
        let key = (question.name().to_ascii().to_lowercase(), question.query_type());
        let reply = zone.lock().unwrap().get(&key).cloned();
        let mut response = Message::response(query.metadata.id, OpCode::Query);
        response.add_query(question.clone());
        match reply.unwrap_or(Reply::Code(ResponseCode::NXDomain)) {
            Reply::Silence => continue,
            Reply::Code(code) => response.metadata.response_code = code,
            Reply::NoData { soa: false } => {}
            Reply::NoData { soa: true } => {
                let soa = SOA::new(name("ns.internal."), name("admin.internal."), 1, 60, 60, 60, 60);
                response.add_authority(Record::from_rdata(name("internal."), 60, RData::SOA(soa)));
            }
            Reply::Records(records) => {
                for data in records {
                    response.add_answer(Record::from_rdata(
                        question.name().clone(),
                        TTL.as_secs() as u32,
                        data,
                    ));
                }
            }
        }
        socket.send_to(&response.to_vec().expect("a message"), peer).await.expect("sent");
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

fn a(last: u8) -> RData {
    RData::A(A::new(127, 0, 0, last))
}

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
