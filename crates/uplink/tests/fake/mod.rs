//! A scripted API server that is also a replica, and the directory of a replica.

#![allow(dead_code, unused_imports, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used)] // A test that cannot be set up fails here, by its line.

mod directory;
mod kserve;
mod registry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyserve_client::Tls;
use anyserve_uplink::{Link, LinkConfig, Token};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};

pub(crate) use directory::Inside;
use kserve::Asked;
pub(crate) use registry::Heard;
use registry::Script;

/// Longer than anything takes that works.
const WATCHDOG: Duration = Duration::from_secs(20);

/// A server with a runtime of its own, so that its end is the end of its connections, too, as when its process dies.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Mutex<Script>>,
    heard: UnboundedReceiver<Heard>,
    pub(crate) asked: UnboundedReceiver<Asked>,
    runtime: Option<Runtime>,
}

// === impl Fake ===

impl Fake {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, None)
    }

    /// One that speaks TLS like this, if it speaks it.
    pub(crate) fn start_with(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let ((tell, heard), (told, asked)) = (unbounded_channel(), unbounded_channel());
        let (registry, kserve) = (registry::service(&script, tell), kserve::service(&script, told));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let mut server = Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            let server = server.add_service(registry).add_service(kserve);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, script, heard, asked, runtime: Some(runtime) }
    }

    /// The next message to the registry that is no heartbeat with nothing new.
    pub(crate) async fn heard(&mut self) -> Heard {
        within(self.heard.recv()).await.unwrap()
    }

    /// The next message that fits.
    pub(crate) async fn hears<T>(&mut self, mut fits: impl FnMut(Heard) -> Option<T>) -> T {
        loop {
            if let Some(found) = fits(self.heard().await) {
                return found;
            }
        }
    }

    /// Ends it and all its connections, and waits for that.
    pub(crate) async fn end(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(WATCHDOG)).await.unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WATCHDOG, future).await.expect("it hangs")
}

/// A link to these API servers.
pub(crate) fn link(addresses: &[SocketAddr]) -> Arc<Link> {
    Link::try_new(config(addresses)).unwrap()
}

pub(crate) fn config(addresses: &[SocketAddr]) -> LinkConfig {
    LinkConfig {
        api_servers: addresses.iter().map(|address| address.to_string().parse().unwrap()).collect(),
        id: "replica-1".into(),
        epoch: 7,
        endpoint: "http://10.0.0.1:8000".into(),
        token: Some(Token::from("secret".to_owned())),
        tls: Tls::default(),
    }
}

fn tell<T>(to: &UnboundedSender<T>, what: T) {
    // A test that has heard enough hears no more.
    let _ = to.send(what);
}
