//! An answer that goes out as it comes. Its beginning is read at once, so that most failures are known before anything of it is
//! said; what follows stays with the instance until its turn has come.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::action::aggregate::part::PartError;
use crate::http::json_check::JsonCheck;
use crate::service::UpstreamBody;

/// What is read before the turn has come.
const BEGINNING: usize = 64 * 1024;

/// An answer may be passed through.
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// The most that may come, where there is a bound.
    pub limit: Option<u64>,
}

/// One that is on its way.
pub struct Passed {
    /// What has come already, checked.
    pub beginning: BytesMut,
    check: JsonCheck,
    body: UpstreamBody,
    /// How much may still come.
    left: u64,
    is_empty: bool,
}

pub enum Opened {
    /// It was no longer than its beginning.
    Whole(Bytes),
    Longer(Box<Passed>),
}

impl Passed {
    pub async fn open(body: UpstreamBody, passes: Passes, may_be_empty: bool) -> Result<Opened, PartError> {
        let left = passes.limit.unwrap_or(u64::MAX);
        if body.size_hint().exact().is_some_and(|length| length > left) {
            return Err(PartError::TooLarge);
        }
        let (beginning, check) = (BytesMut::new(), JsonCheck::default());
        let mut passed = Box::new(Passed { beginning, check, body, left, is_empty: true });
        while passed.beginning.len() < BEGINNING {
            let Some(piece) = passed.next(may_be_empty).await? else {
                return Ok(Opened::Whole(match passed.is_empty {
                    true => Bytes::from_static(b"null"),
                    false => passed.beginning.freeze(),
                }));
            };
            passed.beginning.extend_from_slice(&piece);
        }
        Ok(Opened::Longer(passed))
    }

    /// The next piece of the value; `None` behind its end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self, may_be_empty: bool) -> Result<Option<Bytes>, PartError> {
        loop {
            let Some(frame) = self.body.frame().await else {
                let is_good = self.check.is_whole() || self.is_empty && may_be_empty;
                return if is_good { Ok(None) } else { Err(PartError::NotJson) };
            };
            let Ok(data) = frame.map_err(PartError::Body)?.into_data() else { continue };
            self.left = self.left.checked_sub(data.len() as u64).ok_or(PartError::TooLarge)?;
            self.is_empty &= data.is_empty();
            let of_value = self.check.push(&data).map_err(|_| PartError::NotJson)?;
            if !of_value.is_empty() {
                return Ok(Some(data.slice(of_value)));
            }
        }
    }

    /// The same, as far as it is here already. A body that has broken off says so only behind a pause.
    pub async fn at_once(&mut self) -> Option<Result<Option<Bytes>, PartError>> {
        let mut next = pin!(self.next(false));
        poll_fn(|cx| {
            let polled = next.as_mut().poll(cx);
            let polled = if polled.is_pending() { next.as_mut().poll(cx) } else { polled };
            Poll::Ready(match polled {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// What it holds is free in time, even when its turn does not come.
    pub fn wait(&mut self, cx: &mut std::task::Context<'_>) {
        self.body.send_on(cx);
    }
}
