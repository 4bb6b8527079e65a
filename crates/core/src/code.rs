//! The closed set of codes: the one table from a code to gRPC, HTTP and Python.

use std::fmt;

/// Why a request did not end with an answer. The set is closed: whatever goes wrong is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed or mismatched tensors, or a bad parameter. The caller changes the request.
    InvalidInput,
    /// No token, or one that is not known.
    Unauthenticated,
    /// A known caller that may not do this.
    Forbidden,
    /// Nothing here or, after a delegation, anywhere matches the query.
    NoCapability,
    /// Unknown version, stale object reference, unknown region; or raised by a handler.
    NotFound,
    /// The deadline passed.
    Deadline,
    /// The caller left.
    Cancelled,
    /// The queue is full, or the deadline cannot be met. The caller comes back after `retry_after`.
    Overloaded,
    /// The arena is full.
    ObjectStoreFull,
    /// A cold start takes longer than the deadline leaves.
    Starting,
    /// This replica is leaving. The caller goes elsewhere.
    Draining,
    /// No worker can serve it now, or a handler's own dependency is away.
    Unavailable,
    /// The worker died after the handler had started.
    WorkerLost,
    /// The request is quarantined: its attempts killed workers.
    Poison,
    /// The handler raised.
    HandlerError,
    /// A defect of the runtime.
    Internal,
    /// A call that this capability or this server does not offer.
    Unsupported,
}

/// One row of the table.
struct Row {
    code: Code,
    name: &'static str,
    grpc: i32,
    http: u16,
    python: &'static str,
}

const fn row(code: Code, name: &'static str, grpc: i32, http: u16, python: &'static str) -> Row {
    Row { code, name, grpc, http, python }
}

/// In the order of the enum, so that `TABLE[code as usize]` is the code's row; a test walks it.
const TABLE: [Row; 17] = [
    row(Code::InvalidInput, "INVALID_INPUT", 3, 400, "InvalidInput"),
    row(Code::Unauthenticated, "UNAUTHENTICATED", 16, 401, "Unauthenticated"),
    row(Code::Forbidden, "FORBIDDEN", 7, 403, "Forbidden"),
    row(Code::NoCapability, "NO_CAPABILITY", 5, 404, "NoCapability"),
    row(Code::NotFound, "NOT_FOUND", 5, 404, "NotFound"),
    row(Code::Deadline, "DEADLINE", 4, 504, "DeadlineExceeded"),
    row(Code::Cancelled, "CANCELLED", 1, 499, "Cancelled"),
    row(Code::Overloaded, "OVERLOADED", 8, 429, "Overloaded"),
    row(Code::ObjectStoreFull, "OBJECT_STORE_FULL", 8, 507, "ObjectStoreFull"),
    row(Code::Starting, "STARTING", 14, 503, "Starting"),
    row(Code::Draining, "DRAINING", 14, 503, "Draining"),
    row(Code::Unavailable, "UNAVAILABLE", 14, 503, "Unavailable"),
    row(Code::WorkerLost, "WORKER_LOST", 14, 502, "WorkerLost"),
    row(Code::Poison, "POISON", 9, 422, "Poison"),
    row(Code::HandlerError, "HANDLER_ERROR", 13, 500, "HandlerError"),
    row(Code::Internal, "INTERNAL", 13, 500, "Internal"),
    row(Code::Unsupported, "UNSUPPORTED", 12, 501, "Unsupported"),
];

// === impl Code ===

impl Code {
    /// Every code, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.code)
    }

    /// The name in the closed set, as it stands in replies, logs and metrics: `INVALID_INPUT`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The gRPC status number.
    pub fn grpc(self) -> i32 {
        self.row().grpc
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        self.row().http
    }

    /// The class in `anyserve.errors`.
    pub fn python(self) -> &'static str {
        self.row().python
    }

    /// The number of this code on the worker socket: its place in the table.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code with this number on the worker socket, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        let place = usize::try_from(number).ok()?;
        TABLE.get(place).map(|row| row.code)
    }

    /// The code with this name in the closed set, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.code)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_stands_in_its_own_row_and_comes_back_by_name_and_number() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, place, "{} stands in row {place}", row.name);
            assert_eq!(Code::from_name(row.name), Some(row.code));
            assert_eq!(Code::from_number(row.code.number()), Some(row.code));
        }
        assert_eq!(Code::from_number(17), None);
    }

    #[test]
    fn names_and_python_classes_are_unique_and_statuses_are_real() {
        let names: HashSet<_> = Code::all().map(Code::name).collect();
        let classes: HashSet<_> = Code::all().map(Code::python).collect();
        assert_eq!((names.len(), classes.len()), (TABLE.len(), TABLE.len()));
        assert!(Code::all().all(|code| (1..=16).contains(&code.grpc()) && (400..600).contains(&code.http())));
    }
}
