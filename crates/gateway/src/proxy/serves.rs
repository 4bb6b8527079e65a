//! Asking a replica whether it serves a query, before the last attempt goes there.

use std::time::Duration;

use anyserve_cluster::{Event, Target};
use anyserve_core::Query;
use anyserve_proto::v1::serves_request::Query as Wanted;
use anyserve_proto::v1::{ServesRequest, ServesResponse};
use anyserve_server::parts::Budget;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use tonic::{Code, Status};

use super::asked::Asked;
use super::carry::event;
use super::front::Proxy;
use super::message::{Message, Messages};
use crate::replicas::{Arriving, Head, Lost};

const SERVES: &str = "/anyserve.v1.Replica/Serves";

/// How long a replica may take to answer the question.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer in bytes; it holds one truth value.
const MAX_ANSWER: usize = 64;

/// Asks. A replica that does not answer in time is one that cannot be reached.
pub(crate) async fn ask(proxy: &Proxy, asked: &Asked, target: &Target) -> Event {
    let Some((head, message)) = question(asked, target) else { return Event::Unreached };
    let answer = async {
        let sent = proxy.replicas.send(target, head, &message, |handle| proxy.fleet.knows(handle)).await;
        match sent {
            Ok(response) => read(response.into_parts()).await,
            Err(lost) => Err(lost),
        }
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(true)) => Event::Can,
        Ok(Ok(false)) => Event::Cannot,
        Ok(Err(lost)) => event(&lost, target),
        Err(_) => event(&Lost::Unreached(format!("no answer within {TIMEOUT:?}")), target),
    }
}

fn question(asked: &Asked, target: &Target) -> Option<(Head, Message)> {
    let query = match &target.query {
        Query::Model(name) => Wanted::Model(name.clone()),
        query @ Query::All(_) => Wanted::Selector(query.to_selector()?),
    };
    let question = ServesRequest { query: Some(query), version: asked.version().to_owned() };
    let message = Message::framed(&question).ok()?;
    let headers = [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
    Some((Head { path: SERVES, headers }, message))
}

async fn read((head, body): (http::response::Parts, Arriving)) -> Result<bool, Lost> {
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(serves(&status, false));
    }
    let mut messages = Messages::new(body, MAX_ANSWER, Budget::of(MAX_ANSWER));
    let broken = |error| Lost::Broken(format!("{error:?}"));
    let mut yes = false;
    while let Some(message) = messages.next().await.map_err(broken)? {
        yes = ServesResponse::decode(message.reader()).is_ok_and(|answer| answer.serves);
    }
    let trailers: Option<HeaderMap> = messages.take_trailers();
    let status = trailers.as_ref().and_then(Status::from_header_map);
    Ok(status.is_some_and(|status| serves(&status, yes)))
}

/// What the end of the call says. Who does not know the question has to be tried.
fn serves(status: &Status, yes: bool) -> bool {
    match status.code() {
        Code::Ok => yes,
        Code::Unimplemented => true,
        _ => false,
    }
}
