//! Runs a sync handler on the thread that it is on.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyIterator;

use super::batch::Batch;
use super::call::{Started, cancelled, start};
use super::inbox::{Incoming, Work};
use super::session::Session;

/// Runs a sync handler and answers, whatever comes of it.
pub(super) fn serve(py: Python<'_>, session: &Arc<Session>, work: Work) {
    match work {
        Work::One(incoming) => serve_one(py, session, *incoming),
        Work::Batch(members) => serve_batch(py, session, members),
    }
}

fn serve_batch(py: Python<'_>, session: &Arc<Session>, members: Vec<Incoming>) {
    let Some(mut batch) = Batch::claim(py, session, members) else { return };
    let handler = &batch.row().call.clone_ref(py);
    while let Some(arguments) = batch.next(py) {
        match arguments.and_then(|arguments| handler.bind(py).call1(arguments)) {
            Ok(answers) => batch.finish(&answers),
            Err(raised) => batch.fail(py, &raised),
        }
    }
}

fn serve_one(py: Python<'_>, session: &Arc<Session>, incoming: Incoming) {
    match start(py, session, incoming) {
        None => {}
        // Dropping what there is of it answers.
        Some(Err(error)) => error.write_unraisable(py, None),
        Some(Ok(started)) => {
            if let Err(error) = run(&started) {
                started.call.fail(py, &error);
            }
        }
    }
}

fn run(started: &Started<'_>) -> PyResult<()> {
    let Started { call, request, arguments } = started;
    let value = call.row().call.bind(request.py()).call1(arguments)?;
    if call.row().handler.stream
        && let Ok(responses) = value.cast::<PyIterator>()
    {
        return stream(started, responses);
    }
    call.finish(&value, request)
}

fn stream(started: &Started<'_>, responses: &Bound<'_, PyIterator>) -> PyResult<()> {
    let outcome = send_each(started, responses);
    if outcome.is_err()
        && let Err(error) = responses.call_method0("close")
    {
        // A plain iterator has no close, and a generator that raises in its own says so in the log.
        if responses.hasattr("close")? {
            error.write_unraisable(responses.py(), Some(responses));
        }
    }
    outcome
}

fn send_each(started: &Started<'_>, responses: &Bound<'_, PyIterator>) -> PyResult<()> {
    let (py, Started { call, request, .. }) = (responses.py(), started);
    for response in responses {
        call.send_blocking(&response?, request)?;
        // Between two of its responses is where a generator can be stopped.
        if call.is_cancelled() {
            return Err(cancelled(py));
        }
    }
    call.finish(&py.None().into_bound(py), request)
}
