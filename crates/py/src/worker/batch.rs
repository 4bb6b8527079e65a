//! Requests that share one call of a handler that takes a list.
//!
//! ```text
//! claim ──► waiting: all of them ──next──► running ──finish──► each has its own answer
//!                    ▲                        │
//!                    └──── two halves ◄── fail, more than one      fail, one ──► it has its error
//! ```
//!
//! A call that raises is made again with either half of its requests, so that in the end only those fail that make it
//! raise. A request whose caller has left meanwhile, or whose deadline has passed, is not run again.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Code, Error};
use pyo3::exceptions::{PyBaseException, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::call::{Call, claim, elapsed_ns};
use super::context::Context;
use super::failure::{error_of, note_halves};
use super::inbox::Incoming;
use super::reply::Reply;
use super::session::Session;
use super::table::Row;
use crate::kserve::ModelInferRequest;

/// A batch under way.
pub(super) struct Batch {
    session: Arc<Session>,
    row: usize,
    /// Groups of requests that are still to be run; the next one is the last.
    waiting: Vec<Vec<Member>>,
    running: Vec<Member>,
    started: Instant,
    /// Whether the handler was called before.
    again: bool,
}

/// One request of a batch.
struct Member {
    call: Arc<Call>,
    request: Py<ModelInferRequest>,
    context: Option<Py<Context>>,
    deadline: Option<Instant>,
    /// Of the last call that it was in.
    compute_ns: u64,
}

// === impl Batch ===

impl Batch {
    /// Claims the requests; `None` if the runtime took all of them back. Those that it took back are answered.
    pub(super) fn claim(py: Python<'_>, session: &Arc<Session>, incoming: Vec<Incoming>) -> Option<Self> {
        let row = incoming.first()?.row;
        let members: Vec<_> = incoming.into_iter().filter_map(|one| Member::claim(py, session, one)).collect();
        if members.is_empty() {
            return None;
        }
        let (session, started) = (Arc::clone(session), Instant::now());
        Some(Self { session, row, waiting: vec![members], running: Vec::new(), started, again: false })
    }

    pub(super) fn row(&self) -> &Row {
        &self.session.rows[self.row]
    }

    /// Place of the handler in the table.
    pub(super) fn place(&self) -> usize {
        self.row
    }

    /// The requests that have no answer yet.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Arc<Call>> {
        self.waiting.iter().flatten().chain(&self.running).map(|member| &member.call)
    }

    /// What the handler is to be called with now; `None` once every request has its answer.
    pub(super) fn next<'py>(&mut self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyTuple>>> {
        while let Some(group) = self.waiting.pop() {
            self.running = if self.again { self.still_wanted(py, group) } else { group };
            if !self.running.is_empty() {
                if self.again {
                    self.session.link.flush(py);
                }
                self.started = Instant::now();
                return Some(self.arguments(py));
            }
        }
        None
    }

    /// Answers with what the handler returned.
    pub(super) fn finish(&mut self, value: &Bound<'_, PyAny>) {
        let (py, members) = (value.py(), self.leave());
        let answers = match answers_in(value, &self.row().handler.function, members.len()) {
            Ok(answers) => answers,
            Err(error) => return self.refuse(py, &members, &error_of(py, &error)),
        };
        let replies = members.iter().zip(&answers).map(|(member, answer)| member.reply(answer)).collect::<Vec<_>>();
        self.send(py, &members, &replies);
    }

    /// Halves the batch, or answers with what the handler raised if it ran for one request.
    pub(super) fn fail(&mut self, py: Python<'_>, raised: &PyErr) {
        let mut members = self.leave();
        if members.len() < 2 {
            return self.refuse(py, &members, &error_of(py, raised));
        }
        if !self.again && members.iter().any(|member| member.unwanted().is_none()) {
            note_halves(py, raised, &self.row().handler.function, members.len());
        }
        self.again = true;
        let second = members.split_off(members.len().div_ceil(2));
        self.waiting.extend([second, members]);
    }

    /// Ends the call: notes how long it took.
    fn leave(&mut self) -> Vec<Member> {
        let ns = elapsed_ns(self.started);
        self.row().ran(ns);
        let mut members = std::mem::take(&mut self.running);
        for member in &mut members {
            member.compute_ns = ns;
        }
        members
    }

    /// Answers those that need not be run again.
    fn still_wanted(&self, py: Python<'_>, group: Vec<Member>) -> Vec<Member> {
        let (mut wanted, mut unwanted, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for member in group {
            match member.unwanted() {
                None => wanted.push(member),
                Some(error) => {
                    replies.push(Reply::failed(&error, member.compute_ns));
                    unwanted.push(member);
                }
            }
        }
        self.send(py, &unwanted, &replies);
        wanted
    }

    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let requests = PyList::new(py, self.running.iter().map(|member| &member.request))?;
        if self.row().takes == 1 {
            return PyTuple::new(py, [requests]);
        }
        let contexts = PyList::new(py, self.running.iter().map(|member| member.context.as_ref()))?;
        PyTuple::new(py, [requests, contexts])
    }

    fn refuse(&self, py: Python<'_>, members: &[Member], error: &Error) {
        let replies: Vec<_> = members.iter().map(|member| Reply::failed(error, member.compute_ns)).collect();
        self.send(py, members, &replies);
    }

    /// Sends all replies together, so that they leave in one write.
    fn send(&self, py: Python<'_>, members: &[Member], replies: &[Reply]) {
        let frames: Vec<_> =
            members.iter().zip(replies).map(|(member, reply)| reply.outgoing(member.call.id)).collect();
        self.session.link.push(py, &frames);
        for member in members {
            member.call.settle();
        }
    }
}

/// The answers in what a handler returned for this many requests.
fn answers_in<'py>(value: &Bound<'py, PyAny>, function: &str, requests: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let answers: Option<Vec<_>> = match (value.cast::<PyList>(), value.cast::<PyTuple>()) {
        (Ok(list), _) => Some(list.iter().collect()),
        (_, Ok(tuple)) => Some(tuple.iter().collect()),
        _ => None,
    };
    match answers {
        Some(answers) if answers.len() == requests => Ok(answers),
        other => Err(wrong_answers(value, other.map(|answers| answers.len()), function, requests)),
    }
}

fn wrong_answers(value: &Bound<'_, PyAny>, len: Option<usize>, function: &str, requests: usize) -> PyErr {
    let kind = value.get_type().name().map_or_else(|_| "something".to_owned(), |name| name.to_string());
    let returned = len.map_or_else(|| kind.clone(), |len| format!("a {kind} of {len}"));
    let wanted = "return a list with one response for each, in order";
    let text = format!("'{function}' returned {returned} for {requests} requests; {wanted}");
    if len.is_some() { PyValueError::new_err(text) } else { PyTypeError::new_err(text) }
}

// === impl Member ===

impl Member {
    fn claim(py: Python<'_>, session: &Arc<Session>, mut incoming: Incoming) -> Option<Self> {
        let call = claim(py, session, &mut incoming)?;
        // Without its objects the call is dropped, and that answers.
        Self::new(py, call, incoming).map_err(|error| error.write_unraisable(py, None)).ok()
    }

    fn new(py: Python<'_>, call: Arc<Call>, incoming: Incoming) -> PyResult<Self> {
        let Incoming { parts, headers, attempt, deadline, .. } = incoming;
        let request = Bound::new(py, ModelInferRequest::received(parts))?;
        let context = match call.row().takes {
            1 => None,
            _ => Some(Py::new(py, Context::of(py, &call, &request, headers, attempt, deadline))?),
        };
        Ok(Self { call, request: request.unbind(), context, deadline, compute_ns: 0 })
    }

    /// Why it need not be run again, if there is a reason.
    fn unwanted(&self) -> Option<Error> {
        let because = |code, why| Some(Error::new(code, format!("{why} before its part of the batch was run again")));
        match self.deadline {
            _ if self.call.is_cancelled() => because(Code::Cancelled, "the caller left"),
            Some(deadline) if deadline <= Instant::now() => because(Code::Deadline, "the deadline passed"),
            _ => None,
        }
    }

    /// Its answer: a response, or an exception as if it had been raised.
    fn reply(&self, answer: &Bound<'_, PyAny>) -> Reply {
        let py = answer.py();
        let encoded = match answer.cast::<PyBaseException>() {
            Ok(raised) => Err(PyErr::from_value(raised.clone().into_any())),
            Err(_) => self.call.encode(answer, self.request.bind(py), self.compute_ns),
        };
        match encoded {
            Ok(encoded) => Reply::done(encoded),
            Err(error) => Reply::failed(&error_of(py, &error), self.compute_ns),
        }
    }
}
