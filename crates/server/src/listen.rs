//! Taking the port, before anything else is started.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// A port that belongs to this process; clients can connect from now on, and wait to be accepted.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
}

/// A port that could not be taken. The message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is in use: stop what listens there, or choose another port (--port 0 takes a free one)")]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 belong to privileged processes.
    #[error("{address} may not be listened on by this user: choose a port from 1024 on")]
    Denied {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address is none of this machine's.
    #[error("{address} is not an address of this machine: use 127.0.0.1, 0.0.0.0 or one of its own")]
    NotHere {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

// === impl Listener ===

impl Listener {
    /// Takes the port of `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`], which names the address.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        listen(address).map_err(|source| BindError::new(address, source))
    }

    /// The address with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The listener for the runtime this is called in.
    pub(crate) fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.inner)
    }
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted replica takes its port back although connections of its predecessor linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let inner = TcpListener::from(socket);
    let local = inner.local_addr()?;
    Ok(Listener { inner, local })
}

// === impl BindError ===

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            _ => Self::Other { address, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let first = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let error = Listener::bind(first.local_addr()).unwrap_err();
        assert!(matches!(error, BindError::InUse { address } if address == first.local_addr()));
        assert!(error.to_string().contains("choose another port"));
    }

    #[test]
    fn an_address_of_another_machine_is_refused_by_name() {
        let error = Listener::bind(([192, 0, 2, 1], 0).into()).unwrap_err();
        assert!(matches!(error, BindError::NotHere { .. }), "{error}");
    }
}
