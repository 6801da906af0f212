//! The client's side of a tunnel (RFC 9110 §7.8): the transport, once the 101 has been written to it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::drain::Drained;
use super::io::Transport;

use crate::http::rewound::Rewound;

/// A transport that carries only bytes from now on, the first of which may have come already; and the place among the
/// listener's connections that it takes up as long as this is kept.
pub type Switched = (Rewound<Transport>, Drained);

/// Ready when the connection has been switched. An error when it has come to another end.
pub struct Upgrade(oneshot::Receiver<Switched>);

pub fn pair() -> (oneshot::Sender<Switched>, Upgrade) {
    let (sender, receiver) = oneshot::channel();
    (sender, Upgrade(receiver))
}

impl Future for Upgrade {
    type Output = Result<Switched, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}
