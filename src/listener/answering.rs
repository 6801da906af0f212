//! The answering of requests, apart from any connection.
//!
//! A future that answers a request is several kilobytes large, and making one on the heap means to copy all of it. So they
//! are made to answer one request after the other, and a worker keeps a few; an idle connection has none.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Connection;
use crate::exchange::{Arrived, Exchange, ResponseBody};
use crate::http::response::Response;
use crate::pipeline;

/// Answers one request at a time. Dropping it cancels the answer.
pub struct Answering {
    place: Rc<Place>,
    work: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where requests are put, and responses found.
#[derive(Default)]
struct Place {
    request: Cell<Option<Box<Exchange>>>,
    response: Cell<Option<Response<ResponseBody>>>,
}

/// More than this many spare ones are given back to the allocator.
const MAX_SPARE: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Answering>> = const { RefCell::new(Vec::new()) };
}

impl Answering {
    pub fn begin(connection: Rc<Connection>, arrived: Arrived) -> Self {
        let answering = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(Self::new);
        answering.place.request.set(Some(Exchange::begin(connection, arrived)));
        answering
    }

    fn new() -> Self {
        let place = Rc::<Place>::default();
        let work = Box::pin(work(place.clone()));
        Answering { place, work }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        let Poll::Pending = self.work.as_mut().poll(cx);
        self.place.response.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// After the response: it can take another request.
    pub fn give_back(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(self);
            }
        });
    }
}

async fn work(place: Rc<Place>) -> Infallible {
    loop {
        // Whoever puts a request there polls next.
        let exchange = poll_fn(|_| place.request.take().map_or(Poll::Pending, Poll::Ready)).await;
        let response = pipeline::serve(exchange).await;
        place.response.set(Some(response));
    }
}
