//! The ingress in front of a service that answers at once: what the ingress alone can do. `echo [port]`; to be measured
//! against `anyserve-bench ceiling`.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use anyserve_core::{
    Capability, Catalog, CatalogEntry, Changed, Code, Control, Decision, Directory, Error, Explanation, Fingerprint,
    Handler, Obeyed, Order, Quarantined, Reply, Request, Response, Snapshot, Statistics, Status, Value,
};
use anyserve_server::{Listener, Server, ServerConfig};
use tokio_util::sync::CancellationToken;

// The allocator of the real thing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers every request with its own inputs.
#[derive(Clone)]
struct Echo(Arc<Catalog>);

impl tower::Service<Request> for Echo {
    type Response = Reply;
    type Error = Error;
    type Future = Ready<Result<Reply, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let response = Response { version: "1".into(), outputs: request.inputs, ..Response::default() };
        ready(Ok(Reply::One(response)))
    }
}

impl Directory for Echo {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.0)
    }

    fn statistics(&self, _: usize) -> Option<Statistics> {
        None
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }

    fn changed(&self, _: u64) -> Changed {
        Box::pin(std::future::pending())
    }

    fn explain(&self, request: &Request) -> Explanation {
        let decision = Decision::Run { worker: "echo".into() };
        Explanation { query: request.query.to_string(), candidates: Vec::new(), decision }
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        Vec::new()
    }

    fn release(&self, _: Option<Fingerprint>) -> usize {
        0
    }
}

impl Control for Echo {
    fn status(&self) -> Status {
        Status::default()
    }

    fn order(&self, _: Order) -> Obeyed {
        Box::pin(ready(Err(Error::new(Code::Unsupported, "there are no workers"))))
    }

    fn give_up(&self) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8001), |port| port.parse())?;
    let capability = Capability::try_new([("model".to_owned(), Value::Text("echo".to_owned()))])?;
    let entry = CatalogEntry { handler: Arc::new(Handler::new(capability)), ready: true };
    let echo = Echo(Arc::new(Catalog { entries: vec![entry], ..Catalog::default() }));
    let listener = Listener::bind(([127, 0, 0, 1], port).into())?;
    Server::try_new(&ServerConfig::default(), echo)?.serve(listener, CancellationToken::new()).await?;
    Ok(())
}
