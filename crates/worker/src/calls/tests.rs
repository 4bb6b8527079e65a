//! What nothing here serves, with and without somebody who has it served elsewhere.

use std::future::ready;

use anyserve_core::{Answered, Capability, Expects, GroupSpec, Handler, Limits, Query, Upgrades, Uplink, Value};
use anyserve_sched::PoolPolicy;
use parking_lot::Mutex;

use super::*;
use crate::app::App;
use crate::group::WorkerGroup;
use crate::pool::Nursery;
use crate::process::Spawner;
use crate::{Pool, PoolConfig, SharedMemory};

/// An uplink that answers everything, and remembers what it was given.
#[derive(Debug, Default)]
struct Elsewhere {
    delegated: Mutex<Vec<(String, Option<Query>)>>,
    called: Mutex<Vec<Request>>,
}

impl Uplink for Elsewhere {
    fn delegate(&self, request: Request, upgrades: &Upgrades) -> Answered {
        self.delegated.lock().push((request.query.to_string(), upgrades.apply(&request.query)));
        Box::pin(ready(Ok(Reply::One(Response { model: "delegated".into(), ..Response::default() }))))
    }

    fn call(&self, request: Request) -> Answered {
        self.called.lock().push(request);
        Box::pin(ready(Ok(Reply::One(Response { model: "called".into(), ..Response::default() }))))
    }
}

fn config(uplink: Option<Arc<dyn Uplink>>) -> PoolConfig {
    let second = Duration::from_secs(1);
    PoolConfig {
        program: "/nonexistent".into(),
        target: vec![],
        fork: false,
        environment: vec![],
        workers: 1,
        resources: anyserve_core::Resources::default(),
        policy: PoolPolicy::default(),
        grace: second,
        limits: Limits::default(),
        start_timeout: second,
        ping_timeout: second,
        overrun_grace: second,
        quarantine_ttl: second,
        sequence_idle: second,
        tenant_weights: vec![],
        memory: SharedMemory::default(),
        uplink,
        debug: false,
        on_event: Arc::new(|_| {}),
    }
}

/// A pool that serves `type=here`, without a worker.
fn pool(uplink: Option<Arc<dyn Uplink>>, upgrades: &[&str]) -> Pool {
    let inner = Arc::new(Inner::new(config(uplink)));
    let capability = Capability::try_new([("type".to_owned(), Value::Text("here".into()))]).unwrap();
    let spec = GroupSpec::new("default", vec![Handler::new(capability)]);
    let id = inner.dispatch.lock().machine.add_group(crate::group::limits_of(&spec, 10));
    let upgrades = Upgrades::parse(upgrades.iter().copied()).unwrap();
    let mut app = App::bare();
    app.upgrades = upgrades;
    let app = Arc::new(app);
    let groups = [Arc::new(WorkerGroup::new(id, spec, &app, 1))];
    inner.groups.store(Arc::new(groups.to_vec()));
    inner.route_to(&groups);
    Pool { inner, nursery: Nursery { spawner: Spawner::start(), directory: std::env::temp_dir() } }
}

fn request(selector: &str) -> Request {
    Request {
        id: "7".into(),
        model: String::new(),
        version: String::new(),
        query: Query::parse(selector).unwrap(),
        inputs: vec![],
        outputs: vec![],
        destinations: vec![],
        parameters: vec![],
        headers: vec![],
        deadline: None,
        expects: Expects::One,
    }
}

async fn called(pool: &Pool, selector: &str) -> Result<String, Error> {
    let caller = Ticket::from_number(1);
    pool.inner.dispatch.lock().calls.begin(caller);
    let mut guard = Guard { pool: Arc::clone(&pool.inner), caller, call: None };
    match pool.inner.call(request(selector), &mut guard).await? {
        Reply::One(response) => Ok(response.model),
        Reply::Many(_) => Ok("many".into()),
    }
}

#[tokio::test]
async fn what_nothing_here_matches_is_delegated_with_the_apps_rules() {
    let elsewhere = Arc::new(Elsewhere::default());
    let pool = pool(Some(elsewhere.clone()), &["type=there -> type=there.heavy"]);
    let reply = pool.infer(request("type=there")).await.unwrap();
    assert!(matches!(reply, Reply::One(response) if response.model == "delegated"));
    let upgraded = Some(Query::parse("type=there.heavy").unwrap());
    assert_eq!(elsewhere.delegated.lock().as_slice(), [("'type=there'".to_owned(), upgraded)]);
}

#[tokio::test]
async fn a_call_that_nothing_here_matches_is_made_elsewhere_and_not_delegated() {
    let elsewhere = Arc::new(Elsewhere::default());
    let pool = pool(Some(elsewhere.clone()), &[]);
    assert_eq!(called(&pool, "type=there").await.unwrap(), "called");
    assert_eq!(elsewhere.called.lock().iter().map(|request| request.id.clone()).collect::<Vec<_>>(), ["7"]);
    assert!(elsewhere.delegated.lock().is_empty());
    assert!(!pool.inner.dispatch.lock().calls.waits(Ticket::from_number(1)), "it waits no more");
}

#[tokio::test]
async fn without_an_uplink_the_error_says_what_is_served_and_that_nobody_else_is_known() {
    let pool = pool(None, &["type=there -> type=there.heavy"]);
    let error = pool.infer(request("type=there")).await.unwrap_err();
    assert_eq!(
        (error.code, &error.message[..]),
        (Code::NoCapability, "no capability matches 'type=there': did you mean 'type=here'? served here: type=here")
    );
    let error = called(&pool, "type=there").await.unwrap_err();
    assert_eq!(error.code, Code::NoCapability);
    assert!(
        error.message.ends_with("served here: type=here; no API server is known that could have it served elsewhere")
    );
}

#[tokio::test]
async fn what_is_served_here_never_leaves_also_while_the_replica_does() {
    let elsewhere = Arc::new(Elsewhere::default());
    let pool = pool(Some(elsewhere.clone()), &[]);
    pool.refuse();
    let error = pool.infer(request("type=there")).await.unwrap_err();
    assert_eq!(error.code, Code::Draining);
    let waits = tokio::time::timeout(Duration::ZERO, called(&pool, "type=here")).await;
    assert!(waits.is_err(), "it waits for a worker");
    assert!(elsewhere.called.lock().is_empty());
    assert_eq!(pool.in_flight(), 0, "who does not wait for it any more has cancelled it");
}

#[tokio::test]
async fn what_is_served_elsewhere_is_not_waited_for_beyond_its_deadline() {
    let is_over = async |deadline| tokio::time::timeout(Duration::ZERO, overdue(deadline)).await.is_ok();
    let now = Instant::now();
    assert!(is_over(now.checked_sub(PATIENCE)).await);
    assert!(!is_over(now.checked_add(Duration::from_hours(1))).await);
    assert!(!is_over(None).await);
}
