//! A name server in this process, over UDP and TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::discovery::SystemResolver;

/// Of all its records.
pub const TTL: Duration = Duration::from_secs(60);

/// How the server answers a question.
#[derive(Clone)]
pub enum Reply {
    Records(Vec<RData>),
    /// The first alone over UDP, and that there are more, which TCP has.
    TooManyForUdp(Vec<RData>),
    /// NOERROR without records, with the zone's SOA or without.
    NoData {
        soa: bool,
    },
    Code(ResponseCode),
    Garbage,
    Silence,
}

type Zone = Arc<Mutex<HashMap<(String, RecordType), Reply>>>;

pub struct NameServer {
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
    /// Asks this server alone.
    pub resolver: Arc<SystemResolver>,
    _running: [Running; 2],
}

impl NameServer {
    pub async fn start() -> NameServer {
        Self::start_at(Ipv4Addr::LOCALHOST, 0).await
    }

    /// Port 0 is any that both UDP and TCP have.
    pub async fn start_at(ip: Ipv4Addr, port: u16) -> NameServer {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((ip, port)).await.expect("a socket");
            let address = udp.local_addr().expect("bound");
            match TcpListener::bind(address).await {
                Ok(tcp) => break (udp, tcp),
                Err(error) => assert_eq!(port, 0, "{address}: {error}"),
            }
        };
        let address = udp.local_addr().expect("bound");
        let resolver = Arc::new(SystemResolver::with_config(asking(address), options()));
        let (zone, asked) = (Zone::default(), Arc::default());
        let answering = Answering { zone: zone.clone(), asked: Arc::clone(&asked) };
        let over_tcp = Running(tokio::spawn(answering.clone().over_tcp(tcp)));
        let over_udp = Running(tokio::spawn(answering.over_udp(udp)));
        NameServer { zone, asked, address, resolver, _running: [over_udp, over_tcp] }
    }

    pub fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.lock().unwrap().insert((name.into(), kind), reply);
    }

    /// The same answer for both kinds of addresses.
    pub fn set_both(&self, name: &str, reply: Reply) {
        self.set(name, RecordType::A, reply.clone());
        self.set(name, RecordType::AAAA, reply);
    }

    /// `udp a.internal. A`
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub async fn addresses(&self, name: &str) -> Result<Vec<String>, ResolveError> {
        addresses(&*self.resolver, name).await
    }
}

pub async fn addresses(resolver: &dyn Resolve, name: &str) -> Result<Vec<String>, ResolveError> {
    Ok(resolver.addresses(name).await?.records.iter().map(IpAddr::to_string).collect())
}

fn asking(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Only silence lasts that long, on however busy a machine.
    options.timeout = Duration::from_secs(2);
    options.attempts = 1;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

#[derive(Clone)]
struct Answering {
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    async fn over_udp(self, socket: UdpSocket) {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.expect("received");
            if let Some(answer) = self.answer(&buffer[..length], "udp") {
                socket.send_to(&answer, peer).await.expect("sent");
            }
        }
    }

    async fn over_tcp(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            tokio::spawn(self.clone().connection(stream));
        }
    }

    /// Messages have their length before them (RFC 1035 §4.2.2).
    async fn connection(self, mut stream: TcpStream) {
        while let Ok(length) = stream.read_u16().await {
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.expect("a whole query");
            if let Some(answer) = self.answer(&query, "tcp") {
                stream.write_u16(answer.len() as u16).await.expect("sent");
                stream.write_all(&answer).await.expect("sent");
            }
        }
    }

    fn answer(&self, query: &[u8], over: &str) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).expect("a query");
        let question = query.queries[0].clone();
        let key = (question.name().to_ascii().to_lowercase(), question.query_type());
        self.asked.lock().unwrap().push(format!("{over} {} {}", key.0, key.1));
        let reply = self.zone.lock().unwrap().get(&key).cloned();
        let mut response = Message::response(query.metadata.id, OpCode::Query);
        response.add_query(question.clone());
        let record = |data| Record::from_rdata(question.name().clone(), TTL.as_secs() as u32, data);
        match reply.unwrap_or(Reply::Code(ResponseCode::NXDomain)) {
            Reply::Silence => return None,
            Reply::Garbage => return Some(b"It works!".to_vec()),
            Reply::Code(code) => response.metadata.response_code = code,
            Reply::NoData { soa: false } => {}
            Reply::NoData { soa: true } => {
                let soa = SOA::new(name("ns.internal."), name("admin.internal."), 1, 60, 60, 60, 60);
                response.add_authority(Record::from_rdata(name("internal."), 60, RData::SOA(soa)));
            }
            Reply::TooManyForUdp(records) if over == "udp" => {
                response.metadata.truncation = true;
                response.add_answers(records.into_iter().take(1).map(record));
            }
            Reply::TooManyForUdp(records) | Reply::Records(records) => {
                response.add_answers(records.into_iter().map(record));
            }
        }
        Some(response.to_vec().expect("a message"))
    }
}

pub fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

pub fn a(last: u8) -> RData {
    RData::A(A::new(127, 0, 0, last))
}
