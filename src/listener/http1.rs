//! One HTTP/1.1 connection, all of it in one task: heads are read, answered and the answers written, one
//! request after the other. The watchdog times it, draining ends it.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Method, StatusCode, Version, header};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::answering::Answering;
use super::closing;
use super::drain::Drained;
use super::encode::Asked;
use super::framing::Malformed;
use super::head::{HeadLimits, HeadReader, RequestHead};
use super::io::Transport;
use super::line::{Line, READ_AHEAD_BYTES};
use super::outbound::Outbound;
use super::sending::Sending;
use super::state::{ConnectionState, Overdue, Patience};
use super::upgrade::{self, Switched};
use super::watchdog::Watchdog;
use super::{Connection, LAST_CALL, http2};
use crate::exchange::{Arrived, Incoming, ResponseBody};
use crate::http::body::ClientBody;
use crate::http::hop_by_hop;
use crate::http::response::Response;
use crate::http::rewound::Rewound;
use crate::pipeline;
use crate::reason::Reason;

/// Why a connection is over.
enum End {
    /// There is nobody left to talk to, or nobody who listens.
    Gone,
    /// After a whole response, or between requests.
    Finished,
    /// In the middle of a response, by the failure of its body; `unseen` when the client could take that for the
    /// end of it.
    BrokeOff {
        unseen: bool,
    },
    Refused(Malformed),
    /// The transport is in other hands.
    Switched,
    /// The client speaks HTTP/2.
    IsHttp2,
}

/// A request that is being answered.
struct Begun {
    answering: Answering,
    asked: Asked,
    switch: Option<oneshot::Sender<Switched>>,
}

struct Http1 {
    line: Rc<Line>,
    connection: Rc<Connection>,
    drained: Drained,
    state: ConnectionState,
    watchdog: Watchdog,
    reader: HeadReader,
    /// The client has not said yet which version it speaks.
    may_be_http2: bool,
    out: Outbound,
    /// Whether the client leaves is looked at from the next pulse on.
    is_looked_at_later: bool,
    /// The client has said that it sends no further request.
    is_client_done: bool,
    /// Runs since draining was noticed between requests.
    last_call: Option<Pin<Box<Sleep>>>,
}

/// What an HTTP/2 client says first (RFC 9113 §3.4). No HTTP/1.1 request begins so.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves the connection to its end, also when it turns out to be one of HTTP/2, where that is possible.
///
/// An idle connection holds the future that this makes. What it is made of is put together before, because a future
/// keeps a place for each of its arguments.
pub fn serve(
    transport: Transport,
    may_be_http2: bool,
    connection: Rc<Connection>,
    drained: Drained,
) -> impl Future<Output = ()> {
    let limits = &connection.settings.limits;
    let head = HeadLimits {
        bytes: limits.max_header_bytes,
        fields: limits.max_headers,
        target_bytes: limits.max_uri_bytes,
    };
    let mut http1 = Http1 {
        line: Line::new(transport, connection.worker.buffers.clone(), head),
        connection,
        drained,
        state: ConnectionState::new(),
        watchdog: Watchdog::default(),
        reader: HeadReader::default(),
        may_be_http2,
        out: Outbound::default(),
        is_looked_at_later: false,
        is_client_done: false,
        last_call: None,
    };
    async move {
        match http1.run().await {
            // Larger than what an HTTP/1.1 connection needs, which shares its place with it.
            End::IsHttp2 => Box::pin(http1.into_http2()).await,
            end => http1.end(end).await,
        }
    }
}

const HEAD_TOO_SLOW: Malformed =
    Malformed { reason: Reason::RequestTimeout, detail: "the head of the request did not come in time" };

impl Http1 {
    async fn run(&mut self) -> End {
        poll_fn(|cx| {
            self.line.interims.set_task(cx.waker());
            Poll::Ready(())
        })
        .await;
        loop {
            let begun = match poll_fn(|cx| self.poll_request(cx)).await {
                Ok(begun) => begun,
                Err(end) => return end,
            };
            if let Err(end) = self.answer(begun).await {
                return end;
            }
            self.state.request_ended();
        }
    }

    /// Waits for the next request, and begins to answer it.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Begun, End>> {
        match ready!(self.poll_head(cx)) {
            Ok(head) => Poll::Ready(Ok(self.begin(head))),
            Err(end) => Poll::Ready(Err(end)),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestHead, End>> {
        let line = self.line.clone();
        let io = &mut *line.io.borrow_mut();
        loop {
            if self.may_be_http2 && !io.inbound.is_empty() {
                let (compared, _) = PREFACE.split_at(io.inbound.len().min(PREFACE.len()));
                self.may_be_http2 = io.inbound.starts_with(compared);
                if self.may_be_http2 && compared.len() == PREFACE.len() {
                    return Poll::Ready(Err(End::IsHttp2));
                }
            }
            if !io.inbound.is_empty() && !self.may_be_http2 {
                match self.reader.read(&mut io.inbound, &line.limits) {
                    Ok(Some(head)) => {
                        self.state.request_began();
                        io.rest(&line.buffers);
                        self.is_client_done = !head.keeps_alive;
                        return Poll::Ready(Ok(head));
                    }
                    // The beginning of an empty line is not yet that of a request.
                    Ok(None) if io.inbound.is_empty() || io.inbound[..] == *b"\r" => {}
                    Ok(None) => self.state.received_part(),
                    Err(malformed) => return Poll::Ready(Err(End::Refused(malformed))),
                }
            }
            match io.transport.poll_fill(&mut io.inbound, &line.buffers, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => break,
            }
        }
        io.rest(&line.buffers);
        // A request that has come by now, or is on its way, is answered first. Its head has its own limit of time.
        if !self.state.is_amid_head() && self.poll_last_call(cx).is_ready() {
            return Poll::Ready(Err(End::Finished));
        }
        match ready!(self.poll_watchdog(cx)) {
            Overdue::Head if self.state.is_amid_head() => Poll::Ready(Err(End::Refused(HEAD_TOO_SLOW))),
            _ => Poll::Ready(Err(End::Gone)),
        }
    }

    fn poll_last_call(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.drained.poll(cx));
        self.last_call.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_CALL))).as_mut().poll(cx)
    }

    fn begin(&self, head: RequestHead) -> Begun {
        let asked = Asked {
            is_head: head.method == Method::HEAD,
            is_http10: head.version == Version::HTTP_10,
            keeps_alive: head.keeps_alive,
            takes_trailers: head.takes_trailers,
        };
        let (arrived, switch) = self.arrived(head);
        Begun { answering: Answering::begin(self.connection.clone(), arrived), asked, switch }
    }

    /// Answers one request, to the last byte. `Err` when it was the last of the connection.
    fn answer(&mut self, begun: Begun) -> impl Future<Output = Result<(), End>> {
        let Begun { mut answering, asked, switch } = begun;
        async move {
            let mut sending = poll_fn(|cx| self.poll_answer(&mut answering, asked, cx)).await?;
            answering.give_back();
            poll_fn(|cx| self.poll_send(&mut sending, cx)).await?;
            if sending.broke_off() {
                return Err(End::BrokeOff { unseen: asked.is_http10 });
            }
            if sending.switches {
                return Err(self.switch(switch));
            }
            if sending.closes {
                return Err(End::Finished);
            }
            self.skip_rest().await
        }
    }

    /// What the pipeline is given, and how to begin a tunnel if it asks for one.
    fn arrived(&self, head: RequestHead) -> (Arrived, Option<oneshot::Sender<Switched>>) {
        let RequestHead {
            method, target, version, fields, body: framing, expects_continue, may_upgrade, ..
        } = head;
        let declared = framing.left();
        let body = self.line.body(framing, expects_continue);
        let body = if framing.is_end() { ClientBody::Empty } else { ClientBody::Http1(body) };
        let upgrades = may_upgrade && hop_by_hop::is_upgrade(&fields, version).is_some();
        let (switch, upgrade) = upgrades.then(upgrade::pair).unzip();
        // RFC 9110 §15.2: HTTP/1.0 knows no interim responses.
        let interim = (version == Version::HTTP_11).then(|| {
            self.line.interims.open();
            self.line.interims.clone() as _
        });
        let incoming = Incoming { target, fields, body, declared };
        (Arrived { method, version, incoming, upgrade, interim }, switch)
    }

    /// Waits for the response. Its head stands ready to be written then, to leave together with what comes of its body
    /// at once.
    fn poll_answer(
        &mut self,
        answering: &mut Answering,
        asked: Asked,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Sending, End>> {
        if let Poll::Ready(response) = self.line.in_turn(|| answering.poll(cx)) {
            return Poll::Ready(Ok(self.respond(response, asked)));
        }
        if let Poll::Ready(Err(end)) = self.poll_interims(cx) {
            return Poll::Ready(Err(end));
        }
        self.poll_client(cx).map(Err)
    }

    /// Writes the interim responses that have come. Those that come while the client takes none wait where there is a
    /// bound to them.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            ready!(self.poll_write(cx))?;
            let Some(interims) = self.line.interims.take() else { return Poll::Ready(Ok(())) };
            self.out.buffer(&self.line.buffers).extend_from_slice(&interims);
        }
    }

    fn respond(&mut self, mut response: Response<ResponseBody>, mut asked: Asked) -> Sending {
        let is_last = self.drained.drain().has_begun();
        if is_last && response.status != StatusCode::SWITCHING_PROTOCOLS {
            response.fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        asked.keeps_alive &= !self.line.io.borrow().is_body_unwanted();
        self.send(response, asked)
    }

    fn send(&mut self, response: Response<ResponseBody>, asked: Asked) -> Sending {
        let buffers = &self.line.buffers;
        if let Some(interims) = self.line.interims.close() {
            self.out.buffer(buffers).extend_from_slice(&interims);
        }
        Sending::begin(response, asked, self.out.buffer(buffers))
    }

    /// Ready when the response is out, or as much of it as there is.
    fn poll_send(&mut self, sending: &mut Sending, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            let line = &self.line;
            let gathered = line.in_turn(|| sending.poll_gather(&mut self.out, &line.buffers, cx));
            if sending.is_over() && sending.closes && !sending.broke_off() && !sending.switches {
                self.out.mark_last();
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) if sending.is_over() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if gathered.is_ready() => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                // Either the client or the body has to go on first.
                written => {
                    if written.is_pending() {
                        self.line.in_turn(|| sending.send_on(cx));
                    }
                    let end = ready!(self.poll_client(cx));
                    return Poll::Ready(Err(end));
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let transport = &mut self.line.io.borrow_mut().transport;
        let before = self.out.left();
        let written = self.out.poll_write(transport, &self.line.buffers, cx);
        if self.out.left() < before {
            self.state.took(before - self.out.left());
        }
        self.state.write_blocked(written.is_pending());
        written.map_err(|_| End::Gone)
    }

    /// Ready when the client has left while its request was being answered, or does not read the answer.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let line = self.line.clone();
        let io = &mut *line.io.borrow_mut();
        if io.transport.is_fresh() && !std::mem::replace(&mut self.is_looked_at_later, true) {
            // Most answers are there by then, and nothing needs to be waited for. Later it is made known, and read.
            self.connection.worker.wake_later(cx.waker());
            return self.poll_watchdog(cx).map(|_| End::Gone);
        }
        // As long as the request isn't over, it is the body's reader who notices.
        while io.is_request_over() && io.inbound.len() < READ_AHEAD_BYTES.max(line.limits.bytes) {
            match io.transport.poll_fill(&mut io.inbound, &line.buffers, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(End::Gone),
                Poll::Pending => break,
            }
        }
        if io.is_request_over() {
            // TLS takes a buffer to find out that nothing is there. The answer may be long in coming.
            io.rest(&line.buffers);
        }
        self.poll_watchdog(cx).map(|_| End::Gone)
    }

    /// Ready when the connection has taken too long over something.
    fn poll_watchdog(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        let limits = &self.connection.settings.limits;
        let patience = Patience {
            head: limits.header_timeout,
            idle: limits.idle_timeout,
            least: limits.min_download_rate,
        };
        self.watchdog.poll(&self.state, patience, cx)
    }

    /// Gives the transport to whoever waits for it; the bytes behind the request are the first of the tunnel.
    fn switch(&mut self, switch: Option<oneshot::Sender<Switched>>) -> End {
        let io = &mut *self.line.io.borrow_mut();
        match switch {
            Some(switch) if io.is_request_over() => {
                let unread = std::mem::take(&mut io.inbound).freeze();
                let place = self.drained.drain().join();
                let _ = switch.send((Rewound::new(unread, io.transport.take()), place));
                End::Switched
            }
            _ => End::Gone,
        }
    }

    /// What is left of the request's body is read on the side when it is short. Otherwise the connection ends.
    async fn skip_rest(&mut self) -> Result<(), End> {
        {
            let io = &mut *self.line.io.borrow_mut();
            if io.is_request_over() {
                return Ok(());
            }
            io.disown_body();
            if !io.is_rest_short() {
                return Err(End::Finished);
            }
        }
        self.state.awaits_rest();
        poll_fn(|cx| {
            let line = self.line.clone();
            let skipped = line.io.borrow_mut().poll_skip(&line.limits, &line.buffers, cx);
            match skipped {
                Poll::Ready(skipped) => Poll::Ready(skipped.map_err(|_| End::Finished)),
                Poll::Pending => self.poll_watchdog(cx).map(|_| Err(End::Gone)),
            }
        })
        .await
    }

    fn into_http2(self) -> impl Future<Output = ()> {
        let stream = {
            let io = &mut *self.line.io.borrow_mut();
            Rewound::new(std::mem::take(&mut io.inbound).freeze(), io.transport.take())
        };
        http2::serve(stream, self.connection, self.drained)
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Gone | End::BrokeOff { unseen: false } => drop(self.line.io.borrow_mut().transport.take()),
            // Only the end of the connection tells HTTP/1.0 that a body is whole: this end must not look like it.
            End::BrokeOff { unseen: true } => self.line.io.borrow_mut().transport.take().reset(),
            End::Switched | End::IsHttp2 => {}
            End::Finished => {
                let (transport, sends_on) = {
                    let io = &mut *self.line.io.borrow_mut();
                    let more = !self.is_client_done;
                    let sends_on =
                        !io.is_request_over() || !io.inbound.is_empty() || io.transport.has_unread(more);
                    (io.transport.take(), sends_on)
                };
                closing::close(transport, sends_on).await;
            }
            End::Refused(refused) => Box::pin(self.refuse(refused)).await,
        }
    }

    /// Answers a head that no request came of, and closes the connection.
    async fn refuse(&mut self, refused: Malformed) {
        self.line.io.borrow_mut().inbound.clear();
        let response = pipeline::refuse_head(&self.connection, refused.reason, refused.detail);
        let asked = Asked { is_head: false, is_http10: false, keeps_alive: false, takes_trailers: false };
        let mut sending = self.send(response, asked);
        let transport = &mut self.line.io.borrow_mut().transport.take();
        let writing = poll_fn(|cx| {
            // It is short, and in memory.
            let _ = sending.poll_gather(&mut self.out, &self.line.buffers, cx);
            self.out.poll_write(transport, &self.line.buffers, cx)
        });
        let _ = tokio::time::timeout(closing::WITHIN, writing).await;
        closing::close(transport.take(), true).await;
    }
}
