//! What workers say of requests.

use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Destination, Error, Response};
use anyserve_sched::Ticket;
use anyserve_wire::{Frame, Kind, flags, message, response_of};
use bytes::Bytes;

use crate::dispatch::Inner;
use crate::link::{Link, LinkError};
use crate::memory::ResponsePlaces;
use crate::pending::Caller;
use crate::stream::Part;

// === impl Inner ===

impl Inner {
    /// Takes a batch of frames from a worker.
    pub(crate) fn receive(self: &Arc<Self>, link: &Arc<Link>, frames: &mut Vec<Frame>) -> Result<(), LinkError> {
        let mut flush = false;
        for frame in frames.drain(..) {
            match frame.kind {
                Kind::Chunk => self.chunk(link, frame)?,
                Kind::Pong => link.pong(),
                Kind::Done | Kind::Failed => flush |= self.finished(link, frame)?,
                Kind::Put | Kind::Sealed | Kind::Get | Kind::Release => flush |= self.object(link, &frame)?,
                Kind::Call => flush |= self.called(link, frame)?,
                Kind::Cancel => link.calls.cancel(frame.id),
                Kind::Credit => link.calls.credit(frame.id, frame.message::<message::Credit>()?.bytes),
                Kind::Asleep | Kind::Ready => link.says(frame.kind)?,
                kind => return Err(LinkError::Protocol(format!("a {kind:?} frame after its start"))),
            }
        }
        if flush {
            link.flush();
        }
        Ok(())
    }

    fn chunk(&self, link: &Link, frame: Frame) -> Result<(), LinkError> {
        let ticket = Ticket::from_number(frame.id);
        let meta = frame.message()?;
        let cost = crate::stream::cost(&frame, &meta);
        let response = self.response(link, ticket, meta, frame.body)?;
        let mut dispatch = self.dispatch.lock();
        if dispatch.machine.worker_of(ticket).is_some_and(|worker| worker != link.worker) {
            return Err(protocol("a Chunk frame for a request that is with another worker"));
        }
        // A chunk of a request whose caller has left was on its way when it was withdrawn.
        let Some(pending) = dispatch.machine.payload(ticket) else { return Ok(()) };
        let Caller::Many { unread, .. } = &mut pending.caller else {
            return Err(LinkError::Protocol("a Chunk frame for a request that has one response".into()));
        };
        if *unread >= self.config.limits.stream_window {
            return Err(LinkError::Protocol(format!("{unread} bytes of a stream were sent without credit")));
        }
        *unread += cost;
        let attempts = pending.emit();
        let response = Ok(pending.echo.clone().fill(response, attempts));
        if let Caller::Many { responses, .. } = &pending.caller {
            drop(responses.send(Part { cost, response }));
        }
        Ok(())
    }

    /// Ends a request. True if something has to be flushed to this worker.
    fn finished(&self, link: &Arc<Link>, frame: Frame) -> Result<bool, LinkError> {
        let ticket = Ticket::from_number(frame.id);
        let (outcome, compute, ran) = self.outcome_of(link, frame)?;
        let took = ran.then_some(compute);
        let (finished, mut after) = self.event(|dispatch, now| {
            let (group, out) = (link.group, &mut dispatch.actions);
            let finished = dispatch.machine.finished(group, link.worker, ticket, took, now, out);
            finished.inspect(|finished| link.release(finished.slot))
        });
        if ran {
            link.answered();
        }
        let ended = link.end_calls_of(ticket);
        // The reader flushes its own link once for all frames that it has read.
        let flush = after.flush.take_if(|other| Arc::ptr_eq(other, link)).is_some() || ended;
        after.finish();
        let finished = finished.map_err(|unknown| protocol(format!("an answer for {:?}", unknown.ticket)))?;
        if let Some(pending) = finished.payload {
            pending.end(outcome, compute, self.config.debug);
        }
        Ok(flush)
    }

    /// What a worker says of the end of a request, the time in its handler, and whether the handler ran.
    fn outcome_of(&self, link: &Link, frame: Frame) -> Result<(Outcome, Duration, bool), LinkError> {
        if frame.kind == Kind::Failed {
            let failed: message::Failed = frame.message()?;
            let compute = Duration::from_nanos(failed.compute_ns);
            return Ok((Outcome::Failed(failed.into()), compute, frame.flags & flags::NOT_STARTED == 0));
        }
        let meta: message::Response = frame.message()?;
        let compute = Duration::from_nanos(meta.compute_ns);
        let carries = frame.flags & flags::RESPONSE != 0;
        let response = || self.response(link, Ticket::from_number(frame.id), meta, frame.body);
        let response = carries.then(response).transpose()?;
        Ok((Outcome::Done(response), compute, true))
    }

    /// A response with the bytes of its tensors, wherever they are.
    fn response(
        &self,
        link: &Link,
        ticket: Ticket,
        meta: message::Response,
        body: Bytes,
    ) -> Result<Response, LinkError> {
        let destinations = if meta.written.is_empty() { Vec::new() } else { self.destinations(ticket) };
        let tensors = (&meta.places[..], &meta.outputs[..]);
        let mut places = ResponsePlaces::new(&self.config.memory, link.owner(), tensors, &destinations);
        response_of(meta, body, &mut places).map_err(protocol)
    }

    fn destinations(&self, ticket: Ticket) -> Vec<Destination> {
        let mut dispatch = self.dispatch.lock();
        dispatch.machine.payload(ticket).map_or_else(Vec::new, |pending| pending.parcel.destinations.clone())
    }
}

/// How a request ended at its worker.
pub(crate) enum Outcome {
    /// With its response, or as a stream without one more.
    Done(Option<Response>),
    /// With an error.
    Failed(Error),
}

pub(crate) fn protocol(what: impl std::fmt::Display) -> LinkError {
    LinkError::Protocol(format!("{what}"))
}
