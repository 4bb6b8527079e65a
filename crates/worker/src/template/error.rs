//! What can go wrong with a template.

use std::io;
use std::time::Duration;

use anyserve_core::Error;
use anyserve_wire::{Kind, MessageError, WireError};

use crate::process::AdoptError;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TemplateError {
    /// The app cannot be loaded; the error has the traceback of its code, if it raised.
    #[error("{}", .0.message)]
    Failed(Error),
    /// The app is still being loaded.
    #[error("the app was not loaded within {0:?}")]
    TimedOut(Duration),
    /// The process ended before it said what it has.
    #[error(
        "the process that loads the app ended: {0}; the log has its last words. --python is to name a Python of 3.11 or \
         later that has this package"
    )]
    Ended(String),
    /// The process cannot be started.
    #[error("the process that loads the app cannot be started")]
    Spawn(#[source] io::Error),
    /// It sent what it must not send.
    #[error("the process that loads the app broke the protocol")]
    Protocol(#[from] ProtocolError),
}

/// Why there is no forked worker. All of them mean: spawn it cold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ForkError {
    /// The template has ended, or cannot fork at all. Later forks fail too.
    #[error("the template process has ended")]
    Gone,
    /// The template did not fork: it is not safe now, or the system refused.
    #[error("the template did not fork: {0}")]
    Refused(String),
    /// The template did not answer, and was killed. Later forks fail too.
    #[error("the template did not fork within {0:?}")]
    TimedOut(Duration),
    /// The template broke the protocol, and was killed. Later forks fail too.
    #[error("the template broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The template named a process that is no new worker, and was killed. Later forks fail too.
    #[error("the template named a process that is no new worker")]
    Adopt(#[from] AdoptError),
    /// No pipes could be made for the worker's outputs.
    #[error("no pipe for a worker's output")]
    Pipe(#[source] io::Error),
}

/// How a template broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProtocolError {
    /// It closed its end.
    #[error("it closed its socket")]
    Closed,
    /// The socket failed.
    #[error("its socket failed")]
    Io(#[from] io::Error),
    /// It sent what is no frame, or too large a one.
    #[error("it sent no frame")]
    Wire(#[from] WireError),
    /// It sent a frame that makes no sense now.
    #[error("a {got:?} frame instead of {expected}")]
    Frame { got: Kind, expected: &'static str },
    /// It does not know the secret that it was started with.
    #[error("a manifest of somebody that was not started here")]
    Stranger,
    /// A group is none.
    #[error("a group of the manifest is none")]
    Group(#[from] MessageError),
    /// It has no groups, or too many.
    #[error("a manifest has {groups} groups, from 1 to {max} are allowed")]
    Groups { groups: usize, max: usize },
    /// A group has no name, or one that is too long.
    #[error("a group's name has {len} bytes, from 1 to {max} are allowed")]
    Name { len: usize, max: usize },
    /// Two groups have the same name.
    #[error("two groups have the name '{name}'")]
    Twice { name: String },
    /// A file's path is relative to who knows what.
    #[error("the file '{path}' of a manifest is no absolute path")]
    Relative { path: String },
    /// It answers for another worker than was ordered.
    #[error("worker {got} was forked where worker {expected} was ordered")]
    Worker { got: u32, expected: u32 },
}

// === impl ForkError ===

impl ForkError {
    /// Whether the template is of no use any more.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Pipe(_))
    }
}
