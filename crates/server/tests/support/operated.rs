//! The fake replica as operators see it: a status that the test writes, and orders that it lets be carried out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyserve_core::{
    Control, Error, GroupStatus, Needs, Obeyed, Order, ResourceStatus, Status, StoreLoad, WorkerStatus,
};
use tokio::sync::watch;

use super::Fake;

pub(crate) struct Operated {
    status: Mutex<Status>,
    /// How often the status was looked at.
    looks: AtomicUsize,
    orders: Mutex<Vec<Order>>,
    /// What becomes of orders; none while they are carried out.
    end: watch::Sender<Option<Result<(), Error>>>,
}

impl Default for Operated {
    fn default() -> Self {
        let worker = |name: &str| WorkerStatus { name: name.into(), state: "ready", ..WorkerStatus::default() };
        let group = GroupStatus {
            name: "main".into(),
            state: "ready",
            models: vec!["echo".into(), "gate".into()],
            workers: vec![worker("main-0"), worker("main-1")],
            min_workers: 1,
            max_workers: 2,
            needs: Needs { gpus: 1, tokens: [("token".to_owned(), 2)].into() },
            ..GroupStatus::default()
        };
        let resources = vec![ResourceStatus { name: "token".into(), total: 4, used: 4 }];
        let objects =
            Some(StoreLoad { capacity: 100, used: 25, kept: vec![("main-0".into(), 3)], ..StoreLoad::default() });
        let status = Status { generation: 1, groups: vec![group], resources, objects, ..Status::default() };
        Self {
            status: Mutex::new(status),
            looks: AtomicUsize::default(),
            orders: Mutex::default(),
            end: watch::Sender::new(Some(Ok(()))),
        }
    }
}

impl Fake {
    /// Changes what operators see.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.operated.status.lock().unwrap());
    }

    /// How often the status was looked at.
    pub(crate) fn looks(&self) -> usize {
        self.0.operated.looks.load(Ordering::SeqCst)
    }

    /// Every order so far.
    pub(crate) fn orders(&self) -> Vec<Order> {
        self.0.operated.orders.lock().unwrap().clone()
    }

    /// What becomes of orders from now on, and of those that are under way; none is carried out before this is said.
    pub(crate) fn end_orders(&self, end: Option<Result<(), Error>>) {
        self.0.operated.end.send_replace(end);
    }

    /// How many wait for their orders.
    pub(crate) fn waiting(&self) -> usize {
        self.0.operated.end.receiver_count()
    }
}

impl Control for Fake {
    fn status(&self) -> Status {
        self.0.operated.looks.fetch_add(1, Ordering::SeqCst);
        self.0.operated.status.lock().unwrap().clone()
    }

    fn order(&self, order: Order) -> Obeyed {
        self.0.operated.orders.lock().unwrap().push(order);
        let mut end = self.0.operated.end.subscribe();
        Box::pin(async move { end.wait_for(Option::is_some).await.unwrap().clone().unwrap() })
    }

    fn give_up(&self) {
        self.close_gate();
    }
}
