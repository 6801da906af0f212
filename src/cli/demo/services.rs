//! The services behind the demo's gateway, and a switchboard to stop and start them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::discovery::registry::Announcement;
use crate::discovery::registry::client::{Client, Event};
use crate::http::small_server::{self, SmallBody};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All instances of the demo, and the address at which they are stopped and started.
pub struct Switchboard {
    listener: Option<TcpListener>,
    address: SocketAddr,
    instances: Arc<Mutex<Vec<DemoInstance>>>,
    registered: Arc<tokio::sync::Semaphore>,
}

struct DemoInstance {
    service: &'static str,
    name: String,
    address: SocketAddr,
    registry: SocketAddr,
    /// `None` while it is stopped.
    task: Option<AbortHandle>,
}

impl Switchboard {
    pub async fn open() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok(Switchboard {
            address: listener.local_addr()?,
            listener: Some(listener),
            instances: Arc::default(),
            registered: Arc::new(tokio::sync::Semaphore::new(0)),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn instances(&self) -> Vec<(String, SocketAddr)> {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances.iter().map(|instance| (instance.name.clone(), instance.address)).collect()
    }

    /// Starts an instance on a free port; it registers itself as a service anywhere would.
    pub async fn add(
        &mut self,
        service: &'static str,
        number: u32,
        registry: SocketAddr,
    ) -> Result<(), Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let name = format!("{service}-{number}");
        let registered = self.registered.clone();
        let task = start(listener, service, &name, registry, move || registered.add_permits(1))?;
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).push(DemoInstance {
            service,
            name,
            address,
            registry,
            task: Some(task),
        });
        Ok(())
    }

    pub async fn wait_until_registered(&self) {
        let all = u32::try_from(self.instances().len()).unwrap_or(u32::MAX);
        let waiting = self.registered.acquire_many(all);
        let _ = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    }

    /// Answers at the switchboard's own address, for ever.
    pub async fn run(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let instances = self.instances.clone();
        small_server::serve(listener, move |_, request| {
            let instances = instances.clone();
            async move { switch(&instances, &request).await }
        })
        .await;
    }
}

async fn switch(instances: &Mutex<Vec<DemoInstance>>, request: &Request<Bytes>) -> Response<SmallBody> {
    let path = request.uri().path();
    let (verb, name) = match (request.method(), path.trim_start_matches('/').split_once('/')) {
        (&Method::POST, Some((verb @ ("stop" | "start"), name))) => (verb, name),
        _ => return small_server::text(StatusCode::NOT_FOUND, "POST /stop/NAME or /start/NAME"),
    };
    let restart = {
        let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(instance) = all.iter_mut().find(|instance| instance.name == name) else {
            let names: Vec<_> = all.iter().map(|instance| instance.name.as_str()).collect();
            return small_server::text(StatusCode::NOT_FOUND, format!("there are {}", names.join(", ")));
        };
        match (verb, instance.task.take()) {
            ("stop", running) => {
                // As a crash would: no word to the registry, connections cut.
                if let Some(task) = running {
                    task.abort();
                }
                return small_server::text(StatusCode::OK, format!("{name} is stopped"));
            }
            (_, Some(running)) => {
                instance.task = Some(running);
                return small_server::text(StatusCode::OK, format!("{name} is running"));
            }
            (_, None) => (instance.service, instance.address, instance.registry),
        }
    };
    let (service, address, registry) = restart;
    let started = async {
        let listener = TcpListener::bind(address).await?;
        start(listener, service, name, registry, || {})
    };
    match started.await {
        Ok(task) => {
            let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(instance) = all.iter_mut().find(|instance| instance.name == name) {
                instance.task = Some(task);
            }
            small_server::text(StatusCode::OK, format!("{name} is running again"))
        }
        Err(error) => small_server::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{name}: {error}")),
    }
}

/// One task is the whole instance: aborting it is a crash.
fn start(
    listener: TcpListener,
    service: &'static str,
    name: &str,
    registry: SocketAddr,
    on_registered: impl Fn() + Send + Sync + 'static,
) -> Result<AbortHandle, Failure> {
    let address = listener.local_addr()?;
    let announcement = Announcement::new(service, &address.ip().to_string(), address.port())?;
    let client = Client::new(&format!("http://{registry}").parse()?, &announcement, None)?;
    let name: Arc<str> = name.into();
    let task = tokio::spawn(async move {
        let serving = small_server::serve(listener, move |_, request| {
            let name = name.clone();
            async move { answer(service, &name, &request) }
        });
        let registering = client.keep_registered(|event| {
            if matches!(event, Event::Registered) {
                on_registered();
            }
        });
        tokio::join!(serving, registering);
    });
    Ok(task.abort_handle())
}

fn answer(service: &str, name: &str, request: &Request<Bytes>) -> Response<SmallBody> {
    let uri = request.uri();
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let (status, body) = match (service, request.method(), &segments[..]) {
        (_, &Method::GET, ["health"]) => (StatusCode::OK, json!({ "status": "ok" })),
        ("user-service", &Method::GET, ["api", "users"]) => {
            (StatusCode::OK, Value::Array((1..=3).filter_map(user).collect()))
        }
        ("user-service", &Method::GET, ["api", "users", id]) => match id.parse().ok().and_then(user) {
            Some(user) => (StatusCode::OK, user),
            None => (StatusCode::NOT_FOUND, json!({ "error": format!("there is no user {id}") })),
        },
        ("user-service", &Method::POST, ["api", "users"]) => add_user(request),
        ("order-service", &Method::GET, ["api", "orders"]) => {
            let asked = uri.query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("user_id="));
            (StatusCode::OK, orders(asked.and_then(|id| id.parse().ok())))
        }
        _ => (StatusCode::NOT_FOUND, json!({ "error": "there is nothing here" })),
    };
    let mut response = small_server::json(status, &body);
    if let Ok(value) = name.parse() {
        response.headers_mut().insert("x-served-by", value);
    }
    response
}

const NAMES: [&str; 3] = ["Ada", "Grace", "Linus"];

fn user(id: usize) -> Option<Value> {
    let name = NAMES.get(id.checked_sub(1)?)?;
    Some(json!({ "id": id, "name": name }))
}

fn add_user(request: &Request<Bytes>) -> (StatusCode, Value) {
    let given: Option<Value> = serde_json::from_slice(request.body()).ok();
    let name = given.as_ref().and_then(|given| given.get("name")).and_then(Value::as_str);
    match name {
        // The demo keeps nothing: whoever asks for user 4 finds none.
        Some(name) => (StatusCode::CREATED, json!({ "id": NAMES.len() + 1, "name": name })),
        None => (StatusCode::BAD_REQUEST, json!({ "error": "send {\"name\": …}" })),
    }
}

fn orders(user: Option<u32>) -> Value {
    let all = [
        (101, 1, "keyboard", 4900),
        (102, 1, "monitor", 19900),
        (103, 2, "compiler, used", 100),
        (104, 3, "penguin", 2500),
    ];
    let wanted = all.iter().filter(|(_, of, ..)| user.is_none_or(|user| user == *of));
    wanted
        .map(|(id, of, item, cents)| json!({ "id": id, "user_id": of, "item": item, "cents": cents }))
        .collect()
}
