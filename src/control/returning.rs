//! Looks out for instances that could not be reached, so that they get requests again as soon as they can be.
//!
//! A breaker's `open_for` and the interval of health checks are for instances that answer badly: to ask those
//! too often makes them worse. One that is not there at all (a process that is being replaced) is different. Were
//! it left alone for as long after its return, and were the next one replaced meanwhile, requests would fail
//! that an instance could have answered. So the gateway tries to connect, which costs next to nothing; once
//! that works, the breaker lets its probe through and the next health check is made at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::transitions::Watched;
use crate::clock;
use crate::service::{Instance, TlsFailure, UpstreamTls};

const LOOK_EVERY: Duration = Duration::from_millis(250);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);
const REFUSED_WITHIN: Duration = Duration::from_millis(200);
/// A certificate that isn't accepted stays so for longer than a process is away, and asking costs more.
const AFTER_HANDSHAKE: Duration = Duration::from_secs(1);
/// Connections that are tried at once, over all services.
const MAX_AT_ONCE: usize = 256;

/// Looks after what `services` holds at the moment, until its sender is dropped.
pub async fn run(services: watch::Receiver<Vec<Watched>>) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tries = JoinSet::new();
    let mut tried = HashSet::new();
    while services.has_changed().is_ok() {
        tick.tick().await;
        while let Some(done) = tries.try_join_next() {
            tried.remove(&done.unwrap_or_default());
        }
        let sets: Vec<_> =
            services.borrow().iter().map(|(_, instances)| (instances.current(), instances.tls())).collect();
        for (instance, tls) in
            sets.iter().flat_map(|(set, tls)| set.instances().map(move |instance| (instance, tls)))
        {
            if instance.is_unreachable() && tried.len() < MAX_AT_ONCE && tried.insert(instance.id) {
                tries.spawn(connect(instance.clone(), tls.clone()));
            }
        }
    }
}

/// Tells the instance if it can be reached, and gives back its id.
async fn connect(instance: Arc<Instance>, tls: Option<Arc<UpstreamTls>>) -> u64 {
    if let Ok(Ok(stream)) = timeout(CONNECT_WITHIN, TcpStream::connect(instance.address)).await {
        match tls {
            None => instance.reached(clock::now()),
            Some(tls) => match timeout(HANDSHAKE_WITHIN, agree(&instance, &tls, stream)).await {
                Ok(Ok(())) => instance.reached(clock::now()),
                Ok(Err(failure)) => {
                    instance.set_tls_failure(&failure);
                    sleep(AFTER_HANDSHAKE).await;
                }
                Err(_) => {}
            },
        }
    }
    instance.id
}

/// The handshake, and a moment in which the instance may say that it doesn't take what it was shown.
async fn agree(instance: &Instance, tls: &UpstreamTls, stream: TcpStream) -> Result<(), TlsFailure> {
    let authority = std::str::from_utf8(instance.authority.as_bytes()).unwrap_or_default();
    let (mut stream, _) = tls.once(authority, tls.protocol).secure(stream).await?;
    match timeout(REFUSED_WITHIN, stream.read(&mut [0])).await {
        Ok(Err(error)) => Err(TlsFailure::of(&error, tls.protocol)),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Instances;
    use crate::service::discovered::{Discovered, Publish};

    #[tokio::test]
    async fn an_instance_that_comes_back_is_noticed() {
        let socket = tokio::net::TcpSocket::new_v4().expect("the loopback is IPv4");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("the loopback has ports");
        let address = socket.local_addr().expect("it is bound");
        let instances = Instances::new(1);
        let authority = address.to_string().into();
        instances.publish(vec![Discovered { address, weight: 1, authority, zone: None, priority: 0 }]);
        let instance = instances.current().instances().next().expect("there is one").clone();
        instance.set_unreachable();
        let (_services, watched) = watch::channel(vec![("users".into(), instances)]);
        let looking = tokio::spawn(run(watched));
        // Bound but not listening: connections are refused.
        assert!(timeout(LOOK_EVERY * 2, instance.wants_a_check()).await.is_err());
        assert!(instance.is_unreachable());
        let _listener = socket.listen(1).expect("it is bound");
        timeout(Duration::from_secs(10), instance.wants_a_check()).await.expect("it is noticed");
        assert!(!instance.is_unreachable());
        looking.abort();
    }
}
