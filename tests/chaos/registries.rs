//! The registry that names the instances fails, in every way that a real one can, and an instance with it at the same time: no GET
//! fails.

use std::net::SocketAddr;

use http::{Method, Response};

use crate::faulty::{End, Fault, Faulty};
use crate::load::Load;
use crate::relay::{Network, Relay};
use crate::scene::{RULES, Scene, configuration_of, within_budget};
use crate::support::companion::Companion;
use crate::support::{Consul, Etcd, Gateway, Origin, eventually};

enum Registry {
    Etcd(Etcd),
    Consul(Consul),
}

impl Registry {
    fn source(&self) -> String {
        match self {
            Registry::Etcd(etcd) => {
                format!("discovery: {{ etcd: {{ endpoints: ['{}'], prefix: /services/all/ }} }}", etcd.url())
            }
            Registry::Consul(consul) => {
                format!("discovery: {{ consul: {{ address: '{}', service: users }} }}", consul.url())
            }
        }
    }

    async fn name_all(&self, instances: &[Faulty]) {
        for (number, instance) in instances.iter().enumerate() {
            match self {
                Registry::Etcd(etcd) => etcd.put(&format!("/services/all/{number}"), &instance.url()).await,
                Registry::Consul(consul) => consul.register(&number.to_string(), instance.address).await,
            }
        }
    }

    fn process(&mut self) -> &mut Companion {
        match self {
            Registry::Etcd(etcd) => &mut etcd.process,
            Registry::Consul(consul) => &mut consul.process,
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Registry::Etcd(etcd) => etcd.address,
            Registry::Consul(consul) => consul.address,
        }
    }

    fn wipe(&self) {
        match self {
            Registry::Etcd(etcd) => etcd.wipe(),
            Registry::Consul(consul) => consul.wipe(),
        }
    }

    /// Something in its place that is none.
    async fn liar(&self) -> Origin {
        let answer =
            |_: &_| Response::builder().header("x-consul-index", "9").body("<html>Well</html>".into());
        Origin::start_at(self.address(), move |seen| answer(seen).expect("constants")).await
    }
}

/// Waits until all services say this of their source. There is load meanwhile.
async fn until(scene: &Scene, state: &str) {
    for (rule, _) in RULES {
        eventually(&format!("the source of {rule} is {state}"), || async {
            (scene.gateway.service(rule).await["source"]["state"] == state).then_some(())
        })
        .await;
    }
}

async fn no_get_fails(what: &str, mut registry: Registry) {
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Faulty::start().await);
    }
    registry.name_all(&instances).await;
    let gateway = Gateway::start(&configuration_of(&registry.source(), ""));
    let scene = Scene { gateway, instances };
    until(&scene, "ok").await;
    let load = Load::start(scene.http(), &Method::GET, 2);
    load.go_on(10).await;

    registry.process().kill();
    scene.instances[0].does(Fault::Refuse);
    load.go_on(30).await;
    until(&scene, "failing").await;
    registry.process().restart().await;
    until(&scene, "ok").await;
    scene.instances[0].does(Fault::None);

    registry.process().signal("STOP");
    scene.instances[1].does(Fault::Cut(0, End::Hang));
    load.go_on(60).await;
    registry.process().signal("CONT");
    until(&scene, "ok").await;
    scene.instances[1].does(Fault::None);

    registry.process().kill();
    registry.wipe();
    scene.instances[2].does(Fault::CutAnywhere(End::Reset));
    registry.process().restart().await;
    until(&scene, "failing").await;
    load.go_on(30).await;
    registry.name_all(&scene.instances).await;
    until(&scene, "ok").await;
    scene.instances[2].does(Fault::None);

    registry.process().kill();
    let liar = registry.liar().await;
    scene.instances[0].does(Fault::Deaf);
    until(&scene, "failing").await;
    load.go_on(30).await;
    drop(liar);
    registry.process().restart().await;
    until(&scene, "ok").await;

    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        within_budget(&scene, &Method::GET, &notes).await;
    }
}

/// What the registry would tell is lost, on connections that are there and on new ones, while an instance is replaced. When the network
/// is whole again, that is caught up with.
async fn catches_up(what: &str, registry: Registry) {
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Faulty::start().await);
    }
    registry.name_all(&instances[..2]).await;
    let relay = Relay::start(registry.address()).await;
    let source = registry.source().replace(&registry.address().to_string(), &relay.address.to_string());
    let scene = Scene { gateway: Gateway::start(&configuration_of(&source, "")), instances };
    until(&scene, "ok").await;
    let load = Load::start(scene.http(), &Method::GET, 2);
    load.go_on(10).await;

    relay.is(Network::Parted);
    registry.name_all(&scene.instances).await;
    scene.instances[0].does(Fault::Refuse);
    until(&scene, "failing").await;
    load.go_on(10).await;
    assert_eq!(RULES.map(|(rule, _)| scene.instances[2].seen("GET", rule)), [0; RULES.len()], "{what}");
    relay.is(Network::Whole);
    until(&scene, "ok").await;
    load.go_on(40).await;

    for notes in load.end(what).await {
        assert_eq!(notes.failed(), 0, "{what}: {}", notes.summary());
        assert!(scene.instances[2].seen("GET", notes.rule) > 0, "{what}: {}", notes.summary());
        within_budget(&scene, &Method::GET, &notes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_from_etcd() {
    catches_up("parted from etcd", Registry::Etcd(Etcd::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parted_from_consul() {
    let Some(consul) = Consul::start().await else { return };
    catches_up("parted from Consul", Registry::Consul(consul)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_and_an_instance() {
    no_get_fails("etcd killed, stopped, wiped, replaced", Registry::Etcd(Etcd::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_and_an_instance() {
    let Some(consul) = Consul::start().await else { return };
    no_get_fails("Consul killed, stopped, wiped, replaced", Registry::Consul(consul)).await;
}
