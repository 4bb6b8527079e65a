//! Several threads with a runtime each, as an API server has them.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::thread::JoinHandle;

use anyserve_server::{Drained, Listener, Server, ServerConfig, Threads};
use scripted::{INFER, World, gated, raw, request, start, until, watchdog};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// A runtime with a thread of its own; ends with it.
struct Thread {
    handle: Handle,
    stop: CancellationToken,
    joined: Option<JoinHandle<()>>,
}

/// A server on two of them, in front of the replicas of a world.
struct Two {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<Drained>,
    _threads: [Thread; 2],
}

fn thread() -> Thread {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
    let stopped = stop.clone().cancelled_owned();
    Thread { handle, stop, joined: Some(std::thread::spawn(move || runtime.block_on(stopped))) }
}

fn two(world: &World) -> Two {
    let threads = [thread(), thread()];
    let each = threads.iter().map(|thread| (world.gateway().beside(), thread.handle.clone()));
    let server = Server::over(&ServerConfig::default(), Threads::on(each), CancellationToken::new()).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, shutdown) = (listener.local_addr(), CancellationToken::new());
    let until = shutdown.clone();
    let server = tokio::spawn(async move { server.serve(listener, until).await.unwrap() });
    Two { address, shutdown, server, _threads: threads }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.cancel();
        self.joined.take().unwrap().join().unwrap();
    }
}

#[tokio::test]
async fn connections_are_spread_over_the_threads_and_each_thread_has_one_to_the_replica() {
    let world = start();
    let (gate, gated) = gated();
    let replica = world.replica("a", &["model=m"], gated).await;
    let two = two(&world);
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..6_u32 {
        let body = raw::framed(&request("m", at.to_le_bytes().to_vec()));
        let address = two.address;
        calls.spawn(async move { raw::call(address, INFER, &[], body.clone()).await.body == body });
    }
    until(|| replica.held() == 6).await;
    assert_eq!((replica.connections(), world.in_flight()), (2, 6));
    gate.add_permits(6);
    assert!(watchdog(calls.join_all()).await.into_iter().all(|same| same));
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_is_in_flight_on_every_thread() {
    let world = start();
    let (gate, gated) = gated();
    let replica = world.replica("a", &["model=m"], gated).await;
    let Two { address, shutdown, server, _threads } = two(&world);
    let call = move || async move { raw::call(address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await };
    let calls = [tokio::spawn(call()), tokio::spawn(call())];
    until(|| replica.held() == 2).await;
    shutdown.cancel();
    gate.add_permits(2);
    for answered in calls {
        assert_eq!(watchdog(answered).await.unwrap().status(), "0");
    }
    assert_eq!(watchdog(server).await.unwrap(), Drained::Clean);
}
