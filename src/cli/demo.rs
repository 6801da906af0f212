//! `gatehouse demo`: the gateway, its registry and four small services in one process, with requests to try.

mod services;
mod unpack;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::run::{LogFormat, RunArgs};
use super::token::sign;
use crate::gateway::Gateway;
use crate::telemetry::events;
use services::Switchboard;

/// Serve an example: the gateway with two user-services and two order-services behind it
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// The configuration file; it is written when there is none
    #[arg(short, long, value_name = "FILE", default_value = "gateway.yaml")]
    pub config: PathBuf,
}

const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

pub fn main(args: &DemoArgs) -> u8 {
    if let Err(error) = unpack::where_missing(&args.config) {
        super::complain(format_args!("error: {error}"));
        return super::check::WRONG;
    }
    let run = RunArgs {
        config: args.config.clone(),
        drain_timeout: Duration::from_secs(5),
        log_format: LogFormat::Human,
    };
    super::code(super::run::run(&run, beside))
}

async fn beside(gateway: Arc<Gateway>) {
    let address = |name: &str| {
        let all = gateway.addresses();
        all.into_iter().find(|listener| listener.name == name).map(|listener| listener.address)
    };
    let Some(registry) = address("registry") else {
        events::error("the demo needs a `registry:` block, at which its services register");
        return;
    };
    let mut switchboard = match Switchboard::open().await {
        Ok(switchboard) => switchboard,
        Err(error) => return events::error(format_args!("the demo services can't start: {error}")),
    };
    for (service, number) in
        [("user-service", 1), ("user-service", 2), ("order-service", 1), ("order-service", 2)]
    {
        if let Err(error) = switchboard.add(service, number, registry).await {
            events::error(format_args!("{service}-{number} can't start: {error}"));
        }
    }
    switchboard.wait_until_registered().await;
    let front = gateway.addresses().into_iter().find(|listener| !listener.tls);
    if let Some(front) = front {
        print!("{}", welcome(&gateway, reachable(front.address), address("admin"), &switchboard));
    }
    switchboard.run().await;
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], address.port())),
        false => address,
    }
}

fn welcome(
    gateway: &Gateway,
    front: SocketAddr,
    admin: Option<SocketAddr>,
    switchboard: &Switchboard,
) -> String {
    let config = gateway.config();
    let mut claims = Map::new();
    claims.insert("sub".into(), Value::from("demo-user"));
    claims.insert("role".into(), Value::from("admin"));
    let token = config
        .authenticators
        .first()
        .and_then(|authenticator| sign(authenticator, claims, SystemTime::now(), TOKEN_LIFE).ok());
    let token = token.unwrap_or_else(|| "no-authenticator-with-a-secret".to_owned());
    let board = switchboard.address();
    let mut text = format!("\nGatehouse serves http://{front}\n\n  behind it:\n");
    for (name, address) in switchboard.instances() {
        text += &format!("    {name:<16} http://{address}\n");
    }
    text += &format!(
        "
  export TOKEN={token}

  a user and that user's orders, from two services at once:
    curl -H \"Authorization: Bearer $TOKEN\" http://{front}/gateway/api/users/1/orders
  the same without a token: 401, with the reason
    curl -i http://{front}/gateway/api/users/1/orders
  anyone may read users, only a token may add one:
    curl http://{front}/gateway/api/users/1
    curl -i -X POST -d '{{\"name\":\"Eve\"}}' http://{front}/gateway/api/users
    curl -i -X POST -d '{{\"name\":\"Eve\"}}' -H \"Authorization: Bearer $TOKEN\" http://{front}/gateway/api/users

  stop one of the two user-services, and start it again; no request fails:
    curl -X POST http://{board}/stop/user-service-1
    curl -X POST http://{board}/start/user-service-1
",
    );
    if let Some(admin) = admin {
        text += &format!(
            "
  what the gateway knows:
    curl http://{admin}/api/services
    curl http://{admin}/metrics
"
        );
    }
    let file = gateway.file().display();
    text + &format!(
        "
  Edit {file} while this runs: a change is live at once,
  a mistake is shown and changes nothing.
  Ctrl-C ends it.

"
    )
}
