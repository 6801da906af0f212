//! What goes out of a streamed aggregate, piece by piece: the same document that would have gone out whole, or a line for each part.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::Frame;
use serde_json::Value as Json;

use super::passed::Passed;
use super::run::Run;
use crate::action::aggregate::document::{self, Holds, List, MISSING_PARTS, Slot};
use crate::action::aggregate::timing;
use crate::reason::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Document,
    Lines,
}

/// The client takes what is known at the end only.
#[derive(Clone, Copy, Debug)]
pub struct Trailers {
    pub tells_times: bool,
}

pub async fn write(run: Run, form: Form, trailers: Option<Trailers>) -> Result<(), Reason> {
    let layout = run.aggregate.clone();
    let told = vec![false; layout.parts.len()];
    let mut writer = Writer { run, form, told, has_begun: false };
    for slot in &layout.layout {
        match &slot.holds {
            Holds::Part(place) | Holds::Members(place) => writer.part(slot, *place).await?,
            Holds::List(list) => writer.list(slot, list).await?,
        }
    }
    writer.end(trailers).await
}

struct Writer {
    run: Run,
    form: Form,
    /// The parts of whose failure a line has told.
    told: Vec<bool>,
    has_begun: bool,
}

impl Writer {
    async fn part(&mut self, slot: &Slot, place: usize) -> Result<(), Reason> {
        self.wait_for(&[place]).await?;
        if let Some(mut passed) = self.run.take_opened(place) {
            // As long as nothing of it has gone out, something else can stand in for it.
            match passed.at_once().await.unwrap_or(Ok(Some(Bytes::new()))) {
                Ok(next) => return self.pass(slot, place, passed, next).await,
                Err(error) => self.run.fail(place, error),
            }
            drop(passed);
            if self.form == Form::Lines && self.run.refusal.is_some() {
                self.line_of_failure(place).await;
            }
            self.wait_for(&[place]).await?;
        }
        let mut out = self.opening(slot, Some(place));
        let value = document::composed(&self.run.aggregate, &self.run.board, place);
        self.value(&mut out, &value);
        self.close(&mut out);
        self.run.put(out.freeze()).await;
        Ok(())
    }

    /// Passes an answer through; `next` comes behind its beginning.
    async fn pass(
        &mut self,
        slot: &Slot,
        place: usize,
        mut passed: Box<Passed>,
        mut next: Option<Bytes>,
    ) -> Result<(), Reason> {
        let mut out = self.opening(slot, None);
        self.value(&mut out, &std::mem::take(&mut passed.beginning));
        self.run.put(out.freeze()).await;
        while let Some(piece) = next {
            if !piece.is_empty() {
                let piece = self.within_line(piece);
                self.run.put(piece).await;
            }
            next = match self.run.next(&mut passed).await {
                Ok(next) => next,
                Err(error) => {
                    let reason = error.reason_of_whole();
                    self.run.fail(place, error);
                    return Err(reason);
                }
            };
        }
        let mut out = BytesMut::new();
        self.close(&mut out);
        if !out.is_empty() {
            self.run.put(out.freeze()).await;
        }
        Ok(())
    }

    async fn list(&mut self, slot: &Slot, list: &List) -> Result<(), Reason> {
        self.wait_for(&list.of).await?;
        let mut out = self.opening(slot, None);
        let mut value = BytesMut::new();
        list.write(&self.run.aggregate, &self.run.board, &mut value);
        self.value(&mut out, &value);
        self.close(&mut out);
        self.run.put(out.freeze()).await;
        Ok(())
    }

    /// What was to be said of failures, for those who have not heard it.
    async fn end(mut self, trailers: Option<Trailers>) -> Result<(), Reason> {
        self.run.until(|run| run.refusal.is_some()).await;
        self.check()?;
        let (parts, board) = (&self.run.aggregate.parts, &self.run.board);
        let mut out = BytesMut::new();
        match self.form {
            Form::Document => {
                let errors = document::errors(parts, board);
                if !errors.is_empty() {
                    out.put_slice(if self.has_begun { b",\"_errors\":" } else { b"{\"_errors\":" });
                    out.put_slice(Json::Array(errors).to_string().as_bytes());
                }
                out.put_slice(if self.has_begun || !out.is_empty() { b"}" } else { b"{}" });
            }
            Form::Lines => {
                for place in (0..parts.len()).filter(|place| !self.told[*place]) {
                    if let Some((name, error)) = self.failure(place) {
                        out.put_slice(format!("{{\"part\":{name},\"error\":{error}}}\n").as_bytes());
                    }
                }
            }
        }
        let trailers = trailers.map(|trailers| self.trailers(trailers)).filter(|map| !map.is_empty());
        let Some(trailers) = trailers else {
            self.lay_last(out);
            return Ok(());
        };
        if !out.is_empty() {
            self.run.put(out.freeze()).await;
        }
        self.run.desk.lay(Frame::trailers(trailers));
        Ok(())
    }

    /// Nobody waits for the last piece to be taken.
    fn lay_last(&self, out: BytesMut) {
        if !out.is_empty() {
            self.run.desk.lay(Frame::data(out.freeze()));
        }
    }

    fn trailers(&self, Trailers { tells_times }: Trailers) -> HeaderMap {
        let (parts, board) = (&self.run.aggregate.parts, &self.run.board);
        let times = tells_times.then(|| timing::field(parts, board, self.run.took())).flatten();
        let missing = document::missing(parts, board);
        let fields = [(MISSING_PARTS, missing), (timing::SERVER_TIMING, times)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    async fn wait_for(&mut self, places: &[usize]) -> Result<(), Reason> {
        self.run.until(|run| places.iter().all(|place| run.is_ready(*place))).await;
        self.check()
    }

    fn check(&self) -> Result<(), Reason> {
        self.run.refusal.as_ref().map_or(Ok(()), |refusal| Err(refusal.reason))
    }

    /// What stands before a value. `place` is that of the part whose failure is told with it.
    fn opening(&mut self, slot: &Slot, place: Option<usize>) -> BytesMut {
        let mut out = BytesMut::new();
        match self.form {
            Form::Document => {
                out.put_slice(if self.has_begun { b"," } else { b"{" });
                out.put_slice(&slot.member);
                out.put_u8(b':');
            }
            Form::Lines => {
                out.put_slice(b"{\"part\":");
                out.put_slice(&slot.member);
                if let Some((place, (_, error))) = place.and_then(|place| Some((place, self.failure(place)?)))
                {
                    self.told[place] = true;
                    out.put_slice(format!(",\"error\":{error}").as_bytes());
                }
                out.put_slice(b",\"body\":");
            }
        }
        self.has_begun = true;
        out
    }

    fn value(&self, out: &mut BytesMut, value: &[u8]) {
        let begin = out.len();
        out.put_slice(value);
        if self.form == Form::Lines {
            join_lines(&mut out[begin..]);
        }
    }

    fn within_line(&self, piece: Bytes) -> Bytes {
        match self.form {
            Form::Lines if memchr::memchr2(b'\n', b'\r', &piece).is_some() => {
                let mut piece = BytesMut::from(piece);
                join_lines(&mut piece);
                piece.freeze()
            }
            _ => piece,
        }
    }

    fn close(&self, out: &mut BytesMut) {
        if self.form == Form::Lines {
            out.put_slice(b"}\n");
        }
    }

    /// The last line before the response breaks off.
    async fn line_of_failure(&mut self, place: usize) {
        if let Some((name, error)) = self.failure(place) {
            self.run.put(format!("{{\"part\":{name},\"error\":{error}}}\n").into()).await;
        }
    }

    /// The name of a part and what is to be said of its failure, both as JSON.
    fn failure(&self, place: usize) -> Option<(Json, Json)> {
        let mut error = document::error(&self.run.aggregate.parts, &self.run.board, place)?;
        let name = error.as_object_mut()?.remove("part")?;
        Some((name, error))
    }
}

/// Outside of strings a line break is but a space; within them there is none (RFC 8259 §7).
fn join_lines(json: &mut [u8]) {
    for byte in json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
}
