//! `/admin/workers`, `/admin/groups`, `/admin/models`, `/admin/reload` and `/admin/drain`: the replica's inside, and orders
//! about it.
//!
//! An order waits until it is carried out. With `?wait=false` it is answered as soon as it is given. Either way it stands
//! from then on: a client that leaves takes nothing back.

mod asked;
mod told;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use anyserve_core::{Code, Error, Order};
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::FutureExt;
use http::StatusCode;

use super::admin::guarded;
use super::{answer, at_once, failed, gone};
use crate::route::App;
use crate::{Upstream, guard, orders, status};
use asked::Asked;
#[cfg(any(test, fuzzing))]
pub(super) use asked::of_body as workers_of_body;

/// Makes an order out of what a request asks for.
type Read = fn(Asked) -> Result<Order, Error>;

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    let all = at_once(app, guarded(|app: &App<S>, _| Ok(answer(StatusCode::OK, &status::whole(&app.status())))));
    let drain = at_once(app, guarded(|app: &App<S>, _| Ok(answer(StatusCode::OK, &status::drain(&app.status())))));
    let order = |read: Read| post(ordered(app, read));
    Router::new()
        .route("/admin/workers", get(all))
        .route("/admin/workers/{name}/drain", order(|asked| Ok(Order::Drain { name: asked.worker()? })))
        .route("/admin/workers/{name}/stop", order(|asked| Ok(Order::Stop { name: asked.worker()? })))
        .route("/admin/groups/{name}/start", order(|asked| Ok(Order::Start { group: asked.group()? })))
        .route("/admin/groups/{name}/scale", order(scale))
        .route("/admin/groups/{name}/drain", order(|asked| Ok(Order::Drain { name: asked.group()? })))
        .route("/admin/groups/{name}/stop", order(|asked| Ok(Order::Stop { name: asked.group()? })))
        .route(
            "/admin/models/{name}/load",
            order(|asked| Ok(Order::Load { workers: asked.workers, model: asked.name })),
        )
        .route("/admin/models/{name}/unload", order(|asked| Ok(Order::Unload { model: asked.name })))
        .route("/admin/reload", order(|_| Ok(Order::Reload)))
        .route("/admin/drain", order(|_| Ok(Order::DrainReplica)).get(drain))
}

fn scale(asked: Asked) -> Result<Order, Error> {
    let workers = asked.workers.ok_or_else(|| Error::invalid(asked::NO_WORKERS))?;
    Ok(Order::Scale { group: asked.group()?, workers })
}

/// A handler that carries out an order of an administrator.
fn ordered<S: Upstream>(
    app: &Weak<App<S>>,
    read: Read,
) -> impl Fn(Request) -> Pin<Box<dyn Future<Output = Response> + Send>> + Clone + Send + Sync + 'static {
    let app = app.clone();
    move |request| {
        let app = app.upgrade();
        Box::pin(async move {
            let Some(app) = app else { return gone() };
            obey(&app, request, read).await.unwrap_or_else(|error| failed(&error))
        })
    }
}

async fn obey<S: Upstream>(app: &Arc<App<S>>, request: Request, read: Read) -> Result<Response, Error> {
    guard::check(app.admin_token.as_ref(), request.headers(), request.extensions())?;
    let asked = Asked::read(request, app.status()).await?;
    let waits = asked.wait;
    let order = read(asked)?;
    tracing::info!(?order, "an administrator orders");
    let given = app.upstream.order(order.clone());
    let is_done = if waits {
        wait(app, &order, given).await?;
        true
    } else {
        // What is refused is refused at once; what is begun goes on without anybody who waits.
        given.now_or_never().transpose()?.is_some()
    };
    let status = if waits { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer(status, &told::about(&order, &app.status(), is_done)))
}

async fn wait<S: Upstream>(app: &App<S>, order: &Order, given: anyserve_core::Obeyed) -> Result<(), Error> {
    match order {
        Order::DrainReplica => orders::drained(given, &app.metrics).await,
        _ => orders::done(given, &app.leaving).await,
    }
}

/// That a name is of the other kind. Workers and groups share their orders, but not their paths.
fn other_kind(name: &str, is: &str, is_not: &str) -> Error {
    let message = format!("'{name}' is a {is} and no {is_not}: its paths begin with /admin/{is}s/");
    Error::new(Code::NotFound, message)
}
