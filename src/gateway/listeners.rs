//! The sockets of a configuration: bound before anything of it takes effect, kept open by a reload that does
//! not change their address, and drained when they go.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::plan::Plan;
use crate::admin::Admin;
use crate::admin::view::{CertificateKind, CertificateStatus, ListenerStatus, Moment};
use crate::config::{self, At, Config, Problems, Secret};
use crate::discovery::registry::api::TokenSlot;
use crate::discovery::registry::{self, Store};
use crate::listener::{BindError, Clients, Expiry, LAST_CALL, Limits, ServerTls, Settings, bind};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::worker::{Command, WorkerHandle};

#[derive(Default)]
pub struct Listeners {
    next_id: u64,
    /// In the order of the configuration.
    open: Vec<Open>,
    admin: Option<Side>,
    registry: Option<Side>,
}

struct Open {
    id: u64,
    name: Arc<str>,
    /// As configured; `address` has the port that was found where this says 0.
    bind: SocketAddr,
    address: SocketAddr,
    tls: bool,
    clients: Arc<Clients>,
    certificates: Vec<CertificateStatus>,
}

impl Open {
    /// Whether `listener` can go on with this socket: its queue of connections then goes over to it, even when
    /// the name or TLS are others.
    fn serves(&self, listener: &config::Listener) -> bool {
        let bind = listener.bind.value;
        let asked = bind == self.bind && (bind.port() != 0 || *self.name == *listener.name.value);
        asked || bind == self.address
    }
}

/// A listener of the control side.
struct Side {
    bind: SocketAddr,
    address: SocketAddr,
    set_token: SetToken,
    task: AbortHandle,
}

/// Makes another token hold from the next request on.
type SetToken = Box<dyn Fn(Option<Secret>) + Send + Sync>;

impl Side {
    /// Ends it a moment later, because a request that came in there may be what asked for it.
    fn retire(self) {
        tokio::spawn(async move {
            tokio::time::sleep(LAST_CALL).await;
            self.task.abort();
        });
    }
}

/// What will be open once a configuration takes effect.
pub struct Opening {
    listeners: Vec<Prepared>,
    admin: Option<PreparedSide>,
    registry: Option<PreparedSide>,
}

struct Prepared {
    socket: Sockets,
    bind: SocketAddr,
    settings: Settings,
    certificates: Vec<CertificateStatus>,
}

enum Sockets {
    /// Of the open one with this id.
    Kept(u64),
    New(Vec<TcpListener>),
}

struct PreparedSide {
    bind: SocketAddr,
    socket: Option<TcpListener>,
    token: Option<Secret>,
}

impl Listeners {
    /// Binds what is not open yet. Nothing changes when that fails.
    pub fn prepare(&self, plan: &Plan, workers: usize, metrics: &Arc<Metrics>) -> Result<Opening, Problems> {
        let mut problems = Problems::default();
        let config = &plan.config;
        let kept: Vec<Option<u64>> = config.listeners.iter().map(|listener| self.kept(listener)).collect();
        let leaving = self.leaving(config, &kept);
        let mut listeners = Vec::with_capacity(kept.len());
        for ((listener, tls), kept) in config.listeners.iter().zip(&plan.tls).zip(kept) {
            let before = self.open.iter().find(|open| Some(open.id) == kept);
            let clients = before.map(|open| open.clients.clone()).unwrap_or_default();
            let socket = match kept {
                Some(id) => Some(Sockets::Kept(id)),
                None => bound(&listener.bind, workers, &leaving, &mut problems).map(Sockets::New),
            };
            let Some(socket) = socket else { continue };
            let settings = Settings {
                name: listener.name.as_str().into(),
                tls: tls.as_ref().map(|tls| tls.config.clone()),
                limits: Limits::compile(&listener.limits, workers),
                metrics: metrics.listener(&listener.name),
                clients,
            };
            let certificates = tls.as_ref().map_or_else(Vec::new, certificates);
            listeners.push(Prepared { socket, bind: listener.bind.value, settings, certificates });
        }
        let mut side = |open: &Option<Side>, bind_to: &At<SocketAddr>, token: &Option<Secret>| {
            let stays = open.as_ref().is_some_and(|open| open.bind == bind_to.value);
            let socket = match stays {
                true => None,
                false => Some(bound(bind_to, 1, &leaving, &mut problems)?.pop()?),
            };
            Some(PreparedSide { bind: bind_to.value, socket, token: token.clone() })
        };
        let admin = config.admin.as_ref().and_then(|a| side(&self.admin, &a.bind, &a.token));
        let registry = config.registry.as_ref().and_then(|r| side(&self.registry, &r.bind, &r.token));
        if problems.has_errors() {
            return Err(problems);
        }
        Ok(Opening { listeners, admin, registry })
    }

    /// The id of the open one with whose socket this listener goes on.
    fn kept(&self, listener: &config::Listener) -> Option<u64> {
        self.open.iter().find(|open| open.serves(listener)).map(|open| open.id)
    }

    /// The addresses that are open now and will not be.
    fn leaving(&self, config: &Config, kept: &[Option<u64>]) -> Vec<SocketAddr> {
        let listeners = self.open.iter().filter(|open| !kept.contains(&Some(open.id)));
        let stays = |side: &Side, wanted: Option<SocketAddr>| wanted == Some(side.bind);
        let admin = config.admin.as_ref().map(|admin| admin.bind.value);
        let registry = config.registry.as_ref().map(|registry| registry.bind.value);
        let sides = [(&self.admin, admin), (&self.registry, registry)];
        let sides = sides.into_iter().filter_map(|(side, wanted)| Some((side.as_ref()?, wanted)));
        let sides = sides.filter(|(side, wanted)| !stays(side, *wanted)).map(|(side, _)| side.address);
        listeners.map(|open| open.address).chain(sides).collect()
    }

    pub fn take_effect(
        &mut self,
        opening: Opening,
        workers: &[WorkerHandle],
        store: Option<&Arc<Store>>,
        admin: impl Fn(Option<Secret>) -> Arc<Admin>,
    ) {
        let mut before = std::mem::take(&mut self.open);
        for prepared in opening.listeners {
            let kept = |id| before.iter().position(|open| open.id == id);
            let open = match prepared.socket {
                Sockets::Kept(id) => kept(id).map(|at| keep(before.swap_remove(at), prepared, workers)),
                Sockets::New(sockets) => {
                    let opened = self.open(sockets, prepared.bind, prepared.settings, workers);
                    opened.map(|open| Open { certificates: prepared.certificates, ..open })
                }
            };
            self.open.extend(open);
        }
        for gone in before {
            events::info(format_args!("closing {} ({})", gone.address, gone.name));
            workers.iter().for_each(|worker| worker.send(Command::Close { id: gone.id }));
        }
        let serve_admin = |socket, token| {
            let admin = admin(token);
            let task = tokio::spawn(admin.clone().serve(socket)).abort_handle();
            (task, Box::new(move |token| admin.set_token(token)) as SetToken)
        };
        self.admin = side("admin", self.admin.take(), opening.admin, serve_admin);
        let serve_registry = |socket, token: Option<Secret>| {
            let store = store.cloned().expect("there is a store wherever there is a registry block");
            let slot = TokenSlot::new(token.map(Arc::new).into());
            let task = tokio::spawn(registry::api::serve(socket, store, slot.clone())).abort_handle();
            (task, Box::new(move |token: Option<Secret>| slot.store(token.map(Arc::new))) as SetToken)
        };
        self.registry = side("registry", self.registry.take(), opening.registry, serve_registry);
    }

    fn open(
        &mut self,
        sockets: Vec<TcpListener>,
        bind: SocketAddr,
        settings: Settings,
        workers: &[WorkerHandle],
    ) -> Option<Open> {
        let address = sockets.first()?.local_addr().unwrap_or(bind);
        let id = self.next_id;
        self.next_id += 1;
        let (name, tls) = (settings.name.clone(), settings.tls.is_some());
        let clients = settings.clients.clone();
        for (worker, socket) in workers.iter().zip(sockets) {
            worker.send(Command::Open { id, socket, settings: settings.clone() });
        }
        events::info(format_args!("listening on {address} ({name})"));
        Some(Open { id, name, bind, address, tls, clients, certificates: Vec::new() })
    }

    pub fn status(&self) -> Vec<ListenerStatus> {
        let status = |name: &str, address, tls, certificates| ListenerStatus {
            name: name.to_owned(),
            address,
            tls,
            certificates,
        };
        let sides = [("admin", &self.admin), ("registry", &self.registry)];
        let sides = sides.into_iter().filter_map(|(name, side)| Some((name, side.as_ref()?.address)));
        self.open
            .iter()
            .map(|open| status(&open.name, open.address, open.tls, open.certificates.clone()))
            .chain(sides.map(|(name, address)| status(name, address, false, Vec::new())))
            .collect()
    }
}

/// The same socket, with other settings for connections from now on.
fn keep(open: Open, prepared: Prepared, workers: &[WorkerHandle]) -> Open {
    let Prepared { bind, settings, certificates, .. } = prepared;
    for worker in workers {
        worker.send(Command::Change { id: open.id, settings: settings.clone() });
    }
    if open.name != settings.name || open.tls != settings.tls.is_some() {
        events::info(format_args!("listening on {} ({})", open.address, settings.name));
    }
    Open { name: settings.name.clone(), bind, tls: settings.tls.is_some(), certificates, ..open }
}

fn certificates(tls: &ServerTls) -> Vec<CertificateStatus> {
    let status = |expiry: &Expiry, kind| CertificateStatus {
        kind,
        file: expiry.file.clone(),
        names: expiry.names.clone(),
        expires_at: Moment(expiry.until),
    };
    let certificates = tls.certificates.iter().map(|expiry| status(expiry, CertificateKind::Certificate));
    certificates.chain(tls.lists.iter().map(|expiry| status(expiry, CertificateKind::Crl))).collect()
}

fn bound(
    bind_to: &At<SocketAddr>,
    sockets: usize,
    leaving: &[SocketAddr],
    problems: &mut Problems,
) -> Option<Vec<TcpListener>> {
    bind(bind_to.value, sockets, leaving).map_err(|error| tell(&error, bind_to, problems)).ok()
}

fn tell(error: &BindError, bind_to: &At<SocketAddr>, problems: &mut Problems) {
    let remedy = match error.cause.kind() {
        std::io::ErrorKind::AddrInUse => "another process has this port: stop it, or choose another port",
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: 0.0.0.0 means all that it has"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)"
        }
        _ => "choose another address",
    };
    problems.error(bind_to.span, error.to_string(), remedy);
}

fn side(
    name: &str,
    open: Option<Side>,
    prepared: Option<PreparedSide>,
    serve: impl Fn(tokio::net::TcpListener, Option<Secret>) -> (AbortHandle, SetToken),
) -> Option<Side> {
    let stays = prepared.as_ref().is_some_and(|prepared| prepared.socket.is_none());
    let open = match open {
        Some(open) if !stays => {
            events::info(format_args!("closing {} ({name})", open.address));
            open.retire();
            None
        }
        open => open,
    };
    let PreparedSide { bind, socket, token } = prepared?;
    let Some(socket) = socket else {
        return open.inspect(|open| (open.set_token)(token));
    };
    let address = socket.local_addr().unwrap_or(bind);
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            events::error(format_args!("{name} can't be served: {error}"));
            return None;
        }
    };
    events::info(format_args!("listening on {address} ({name})"));
    let (task, set_token) = serve(socket, token);
    Some(Side { bind, address, set_token, task })
}
