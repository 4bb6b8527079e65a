//! Asking a replica whether it serves a query, before the last attempt goes there.

use anyserve_cluster::{Event, Target};
use anyserve_core::Query;
use anyserve_proto::v1::serves_request::Query as Wanted;
use anyserve_proto::v1::{ServesRequest, ServesResponse};
use prost::Message as _;
use tonic::Code;

use super::asked::Asked;
use super::carry::event;
use super::front::Proxy;
use super::inquiry::{Inquired, inquire};

const SERVES: &str = "/anyserve.v1.Replica/Serves";

/// Longest answer in bytes; it holds one truth value.
const MAX_ANSWER: usize = 64;

/// Asks. A replica that does not answer in time is one that cannot be reached.
pub(crate) async fn ask(proxy: &Proxy, asked: &Asked, target: &Target) -> Event {
    let Some(question) = question(asked, target) else { return Event::Unreached };
    match inquire(proxy, target, SERVES, &question, MAX_ANSWER).await {
        Ok(answer) if serves(&answer) => Event::Can,
        Ok(_) => Event::Cannot,
        Err(lost) => event(&lost, target),
    }
}

fn question(asked: &Asked, target: &Target) -> Option<ServesRequest> {
    let query = match &target.query {
        Query::Model(name) => Wanted::Model(name.clone()),
        query @ Query::All(_) => Wanted::Selector(query.to_selector()?),
    };
    Some(ServesRequest { query: Some(query), version: asked.version().to_owned() })
}

/// Whether that means yes. Who does not know the question has to be tried.
fn serves(answer: &Inquired) -> bool {
    match answer {
        Ok(Some(message)) => ServesResponse::decode(message.reader()).is_ok_and(|answer| answer.serves),
        Ok(None) => false,
        Err(code) => *code == Code::Unimplemented,
    }
}
