//! After `101 Switching Protocols` (RFC 9110 §7.8) the gateway passes bytes both ways until one side ends.

use bytes::Bytes;
use http::header;

use crate::exchange::Content;
use crate::http::hop_by_hop;
use crate::http::response::Response;
use crate::listener::Upgrade;
use crate::service::{Upgraded, UpstreamBody};

/// Starts the tunnel in a task of its own and gives the 101 that begins it. The instance counts as busy,
/// and the client's connection as open, for as long as the tunnel is.
pub fn begin(
    client: Upgrade,
    mut instance: Upgraded,
    body: UpstreamBody,
    mut response: Response<()>,
) -> Response<Content> {
    let protocol = response.fields.value(&header::UPGRADE);
    hop_by_hop::strip_response(&mut response.fields);
    if let Some(protocol) = protocol {
        hop_by_hop::write_upgrade(&mut response.fields, protocol);
    }
    tokio::task::spawn_local(async move {
        let _busy = body;
        let Ok((mut client, _place)) = client.await else { return };
        // However it ends, both sides are closed by being dropped; there is nobody to tell.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut instance).await;
    });
    response.map(|()| Content::Whole(Bytes::new()))
}
