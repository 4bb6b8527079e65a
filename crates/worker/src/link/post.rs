//! What is sent to a worker: put behind what is queued already. It leaves with the next flush.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyserve_sched::Sending;
use anyserve_wire::{Frame, HEADER_LEN, Header, Kind, encode_member, message};
use bytes::{Bytes, BytesMut};
use prost::Message;

use super::{Link, LinkError, place};
use crate::open_calls::ResultFrame;
use crate::pending::Parcel;

/// A request as it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted<'a> {
    pub(crate) sending: Sending,
    pub(crate) deadline: Option<Instant>,
    pub(crate) parcel: &'a Parcel,
}

/// Several requests on their way into one frame.
pub(crate) struct BatchFrame<'a> {
    link: &'a Link,
    meta: BytesMut,
    body: Vec<Bytes>,
}

// === impl Link ===

impl Link {
    /// Queues one request. It leaves with the next flush.
    pub(crate) fn push_request(&self, posted: &Posted<'_>) {
        let Posted { sending, parcel, .. } = posted;
        let head = posted.head();
        self.slots.offer(place(sending.slot), sending.ticket.number());
        let mut outbox = self.outbox.lock();
        // Protobuf messages merge when they are concatenated: what is known only now goes before what was encoded once.
        let meta_len = head.encoded_len() + parcel.meta.len();
        let header = Header {
            kind: Kind::Request,
            flags: 0,
            id: sending.ticket.number(),
            meta_len: u32::try_from(meta_len).expect("checked against the limit when it was encoded"),
            body_len: parcel.body_len() as u64,
        };
        let tail = outbox.tail();
        tail.reserve(HEADER_LEN + meta_len);
        header.encode(tail);
        head.encode(tail).expect("room was reserved");
        tail.extend_from_slice(&parcel.meta);
        parcel.body().for_each(|bytes| outbox.push(bytes));
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a frame with several requests.
    pub(crate) fn batch(&self) -> BatchFrame<'_> {
        BatchFrame { link: self, meta: BytesMut::new(), body: Vec::new() }
    }

    /// Queues a frame without a body.
    pub(crate) fn push(&self, frame: &Frame) {
        frame.encode_head(self.outbox.lock().tail());
    }

    /// Queues the answer to something that the worker has asked.
    ///
    /// # Errors
    /// It does not read its answers.
    pub(crate) fn push_answer(&self, answer: &Frame) -> Result<(), LinkError> {
        self.outbox.lock().push_answer(answer).map_err(|unread| LinkError::Protocol(unread.to_string()))
    }

    /// Queues one result of a call. It leaves with the next flush.
    pub(crate) fn push_result(&self, result: &ResultFrame) {
        let mut outbox = self.outbox.lock();
        result.header().encode(outbox.tail());
        outbox.tail().extend_from_slice(&result.meta);
        result.body.iter().for_each(|bytes| outbox.push(bytes));
        if result.end {
            outbox.note_result();
        }
    }

    /// Calls whose last results the worker has not read yet.
    pub(crate) fn unread_results(&self) -> usize {
        self.outbox.lock().unread_results()
    }
}

// === impl BatchFrame ===

impl BatchFrame<'_> {
    pub(crate) fn push(&mut self, posted: &Posted<'_>) {
        let Posted { sending, parcel, .. } = posted;
        self.link.slots.offer(place(sending.slot), sending.ticket.number());
        encode_member(&mut self.meta, sending.ticket.number(), parcel.body_len() as u64, &posted.head(), &parcel.meta);
        self.body.extend(parcel.body().cloned());
        self.link.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues the frame. It leaves with the next flush.
    pub(crate) fn end(self) {
        let header = Header {
            kind: Kind::Batch,
            flags: 0,
            id: 0,
            meta_len: u32::try_from(self.meta.len()).expect("members are few, and each is small"),
            body_len: self.body.iter().map(|bytes| bytes.len() as u64).sum(),
        };
        let mut outbox = self.link.outbox.lock();
        header.encode(outbox.tail());
        outbox.tail().extend_from_slice(&self.meta);
        self.body.iter().for_each(|bytes| outbox.push(bytes));
    }
}

// === impl Posted ===

impl Posted<'_> {
    /// What is known of the request only now.
    fn head(&self) -> message::Request {
        let Sending { slot, attempt, .. } = self.sending;
        let remaining_us = self.deadline.map_or(0, remaining_us);
        message::Request { handler: self.parcel.handler, slot, attempt, remaining_us, ..Default::default() }
    }
}

/// Microseconds until the deadline plus one, as `Request::remaining_us` has it.
fn remaining_us(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_micros()).unwrap_or(u64::MAX - 1) + 1
}
