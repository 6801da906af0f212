//! Joins: a call for each element of another part's answer, or for many of them at once. Equal ones are asked once, and
//! what comes of them stands in the order of the elements.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::json::{Json, Kind};
use super::part::{PartCall, PartError, PartRequest, Performed, Told};
use super::select::Query;
use super::sent::RequestFields;
use super::template::{Given, Step, walk};
use crate::action::Attempts;
use crate::http::query::push_text;
use crate::service::{Caller, Wish};

pub struct Join {
    /// The part whose elements it goes through.
    pub from: usize,
    pub query: Query,
    /// The member that each element gets, as it is written; without one there is an array of the answers.
    pub into: Option<Bytes>,
    /// The same as text.
    pub into_name: Option<Box<str>>,
    pub concurrency: usize,
    pub max_items: usize,
    pub batch: Option<Batch>,
    /// What stands for an element whose call has failed.
    pub fallback: Bytes,
}

/// Many elements in one call.
pub struct Batch {
    /// `ids=`
    pub parameter: Box<str>,
    /// Where an element has its key.
    pub value: Box<[Step]>,
    /// Where an element of the answer has it.
    pub key: Box<[Step]>,
    pub size: usize,
}

/// What is to be asked for all elements.
pub struct JoinWork {
    requests: Vec<Result<PartRequest, Told>>,
    /// Which of the requests is that of an element, or why there is none, and its key in a batch.
    items: Vec<Result<(usize, Box<str>), Told>>,
}

impl Join {
    /// The elements of the other part's answer.
    pub fn elements<'b>(&self, value: &'b [u8]) -> Option<Vec<Json<'b>>> {
        self.query.nodes(Json::of(value))
    }

    pub fn work(
        &self,
        call: &PartCall,
        given: &Given<'_>,
        fields: impl Fn() -> RequestFields,
        wish: impl Fn(&str) -> Wish,
    ) -> Result<JoinWork, PartError> {
        let elements = given.board.value(self.from).and_then(|value| self.elements(value));
        let elements = elements.ok_or(PartError::WrongShape)?;
        if elements.len() > self.max_items {
            return Err(PartError::TooManyItems);
        }
        match &self.batch {
            None => Ok(self.one_by_one(call, given, &elements, fields, wish)),
            Some(batch) => self.batches(batch, call, given, &elements, fields, wish),
        }
    }

    fn one_by_one(
        &self,
        call: &PartCall,
        given: &Given<'_>,
        elements: &[Json<'_>],
        fields: impl Fn() -> RequestFields,
        wish: impl Fn(&str) -> Wish,
    ) -> JoinWork {
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut requests = Vec::new();
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            if self.cannot_take(*element) {
                items.push(Err(PartError::WrongShape.told()));
                continue;
            }
            let given = Given { item: Some(*element), ..*given };
            match call.request(&given, fields(), &wish) {
                Err(error) => items.push(Err(error.told())),
                Ok(request) => {
                    let place = *known.entry(call.identity(&request)).or_insert(requests.len());
                    if place == requests.len() {
                        requests.push(Ok(request));
                    }
                    items.push(Ok((place, Box::default())));
                }
            }
        }
        JoinWork { requests, items }
    }

    fn batches(
        &self,
        batch: &Batch,
        call: &PartCall,
        given: &Given<'_>,
        elements: &[Json<'_>],
        fields: impl Fn() -> RequestFields,
        wish: impl Fn(&str) -> Wish,
    ) -> Result<JoinWork, PartError> {
        let mut places: HashMap<Box<str>, usize> = HashMap::new();
        let mut keys: Vec<Box<str>> = Vec::new();
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            if self.cannot_take(*element) {
                items.push(Err(PartError::WrongShape.told()));
                continue;
            }
            // A comma in a key would ask for two others.
            let key = walk(*element, &batch.value).and_then(Json::text);
            let Some(key) = key.filter(|key| !key.is_empty() && !key.contains(',')) else {
                items.push(Err(PartError::MissingValue.told()));
                continue;
            };
            let place = *places.entry(key.as_ref().into()).or_insert(keys.len());
            if place == keys.len() {
                keys.push(key.as_ref().into());
            }
            items.push(Ok((place / batch.size, Box::from(key.as_ref()))));
        }
        let mut requests = Vec::new();
        for keys in keys.chunks(batch.size) {
            let mut request = call.request(given, fields(), &wish)?;
            let mut target = request.target().as_str().to_owned();
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&batch.parameter);
            for (place, key) in keys.iter().enumerate() {
                if place > 0 {
                    target.push(',');
                }
                push_text(&mut target, key);
            }
            requests.push(match request.retarget(target) {
                true => Ok(request),
                false => Err(PartError::BadPath.told()),
            });
        }
        Ok(JoinWork { requests, items })
    }

    /// Whether the answer has to stand in the element, and can't.
    fn cannot_take(&self, element: Json<'_>) -> bool {
        self.into.is_some() && element.kind() != Kind::Object
    }

    /// Asks, some at a time. What has come of them is as long as `max_body` at most, all together.
    pub async fn run(
        &self,
        call: &PartCall,
        caller: Caller<'_>,
        work: JoinWork,
        deadline: Instant,
        (required, attempts): (bool, &mut u32),
    ) -> Performed {
        let mut results: Vec<Result<Answer, Told>> = Vec::with_capacity(work.requests.len());
        let mut waiting = Vec::new();
        for (place, asked) in work.requests.into_iter().enumerate() {
            match asked {
                Ok(request) => {
                    results.push(Err(PartError::TimedOut.told()));
                    waiting.push((place, request));
                }
                Err(told) => results.push(Err(told)),
            }
        }
        let mut waiting = waiting.into_iter();
        let mut running = FuturesUnordered::new();
        let mut bytes = 0;
        loop {
            while running.len() < self.concurrency
                && let Some((place, request)) = waiting.next()
            {
                running.push(async move {
                    let mut attempts = Attempts::default();
                    let shaped = |answer: Bytes| match self.batch {
                        Some(_) if answer == b"null"[..] => Ok(answer),
                        Some(_) => call.shape.select(answer),
                        None => call.shape.apply(answer),
                    };
                    let answered = call.ask(caller, request, deadline, &mut attempts, shaped).await;
                    (place, answered, attempts.count)
                });
            }
            let Some((place, (answer, old), count)) = running.next().await else { break };
            *attempts += count;
            let answer = match (answer, old) {
                (Ok(value), _) => Ok(Answer { value, instead_of: None }),
                (Err(error), Some(old)) => {
                    Ok(Answer { value: old.value, instead_of: Some((error.told(), old.age_s)) })
                }
                (Err(error), None) if required => return Performed::of(Err(error)),
                (Err(error), None) => Err(error.told()),
            };
            bytes += answer.as_ref().map_or(0, |answer| answer.value.len()) as u64;
            if bytes > call.max_body {
                return Performed::of(Err(PartError::TooLarge));
            }
            results[place] = answer;
        }
        self.spread(call, work.items, &results, required)
    }

    /// The answers in the order of the elements. Many elements may have one answer in common, and the list of them is as long as
    /// `max_body` at most.
    fn spread(
        &self,
        call: &PartCall,
        items: Vec<Result<(usize, Box<str>), Told>>,
        results: &[Result<Answer, Told>],
        required: bool,
    ) -> Performed {
        let answers: Vec<HashMap<String, Json<'_>>> = match &self.batch {
            None => Vec::new(),
            Some(batch) => {
                let value =
                    |result| Result::as_ref(result).map_or(&b"[]"[..], |answer: &Answer| &answer.value);
                results.iter().map(|result| by_key(batch, value(result))).collect()
            }
        };
        let of_item = |item: Result<(usize, Box<str>), Told>| -> Result<Answer, Told> {
            let (place, key) = item?;
            let answer = results[place].as_ref().map_err(|told| *told)?;
            let Some(batch) = answers.get(place) else { return Ok(answer.clone()) };
            if !matches!(Json::of(&answer.value).kind(), Kind::Array | Kind::Null) {
                return Err(PartError::WrongShape.told());
            }
            let found = batch.get(&*key).ok_or_else(|| PartError::NotInBatch.told())?;
            let value = call.shape.dress(answer.value.slice_ref(found.bytes()));
            Ok(Answer { value: value.map_err(|error| error.told())?, ..*answer })
        };
        let mut list = BytesMut::new();
        let (mut failed, mut age_s): (Option<(Told, Vec<usize>)>, _) = (None, None);
        for (place, item) in items.into_iter().enumerate() {
            list.extend_from_slice(if list.is_empty() { b"[" } else { b"," });
            let (value, told) = match of_item(item) {
                Ok(Answer { value, instead_of }) => {
                    age_s = age_s.max(instead_of.map(|(_, age_s)| age_s));
                    (value, instead_of.map(|(told, _)| told))
                }
                Err(told) if required => return Performed::of(Err(PartError::Told(told))),
                Err(told) => (self.fallback.clone(), Some(told)),
            };
            if (list.len() + value.len()) as u64 > call.max_body {
                return Performed::of(Err(PartError::TooLarge));
            }
            list.extend_from_slice(&value);
            if let Some(told) = told {
                failed.get_or_insert_with(|| (told, Vec::new())).1.push(place);
            }
        }
        list.extend_from_slice(if list.is_empty() { b"[]" } else { b"]" });
        Performed { result: Ok(list.freeze()), failed, age_s }
    }
}

/// The answer for an element, or for many; or the last good one in its place, with why that is, and how old it is.
#[derive(Clone)]
struct Answer {
    value: Bytes,
    instead_of: Option<(Told, u64)>,
}

/// The elements of a batch's answer; of two with a key the first.
fn by_key<'b>(batch: &Batch, answer: &'b [u8]) -> HashMap<String, Json<'b>> {
    let mut found = HashMap::new();
    for element in Json::of(answer).elements() {
        if let Some(key) = walk(element, &batch.key).and_then(Json::text) {
            found.entry(key.into_owned()).or_insert(element);
        }
    }
    found
}

/// Puts the answers of a join into the elements of `value` that they are for. `edits` come in the order of the joins.
pub fn attach(value: &[u8], edits: Vec<Edit<'_>>) -> Vec<u8> {
    let mut edits = edits;
    edits.sort_by_key(|edit| edit.at);
    let mut out =
        Vec::with_capacity(value.len() + edits.iter().map(|edit| edit.value.len() + 16).sum::<usize>());
    let mut done = 0;
    // Where the last member stands, and its name.
    let mut last: Option<(usize, &[u8])> = None;
    for edit in edits {
        // Inside of something that another one has taken the place of, or an element that was meant twice.
        if edit.at < done || edit.replaces == 0 && last == Some((edit.at, edit.member)) {
            continue;
        }
        out.extend_from_slice(&value[done..edit.at]);
        done = edit.at + edit.replaces;
        if edit.replaces == 0 {
            if !edit.is_first || last.is_some_and(|(at, _)| at == edit.at) {
                out.push(b',');
            }
            out.extend_from_slice(edit.member);
            out.push(b':');
            last = Some((edit.at, edit.member));
        }
        out.extend_from_slice(edit.value);
    }
    out.extend_from_slice(&value[done..]);
    out
}

/// A member that an element gets.
pub struct Edit<'b> {
    at: usize,
    /// The bytes of the value that it has there already.
    replaces: usize,
    /// The element has no other member.
    is_first: bool,
    member: &'b [u8],
    value: &'b [u8],
}

impl Join {
    /// What is to be done to `value`, that of the part whose elements the join goes through.
    pub fn edits<'b>(&'b self, value: &'b [u8], answers: &'b [u8], edits: &mut Vec<Edit<'b>>) {
        let (Some(member), Some(name)) = (&self.into, &self.into_name) else { return };
        let offset = |inner: &[u8]| (inner.as_ptr() as usize).checked_sub(value.as_ptr() as usize);
        let elements = self.elements(value).unwrap_or_default();
        for (element, answer) in elements.into_iter().zip(Json::of(answers).elements()) {
            let Some(start) = offset(element.bytes()).filter(|_| element.kind() == Kind::Object) else {
                continue;
            };
            let edit = match element.member(name) {
                Some(old) => offset(old.bytes()).map(|at| (at, old.bytes().len())),
                None => Some((start + element.bytes().len() - 1, 0)),
            };
            let Some((at, replaces)) = edit else { continue };
            let is_first = element.members().next().is_none();
            edits.push(Edit { at, replaces, is_first, member, value: answer.bytes() });
        }
    }
}
