//! What API servers hear of a replica, over real sockets.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod fake;

use anyserve_core::CapabilityLoad;
use anyserve_proto::v1::{HeartbeatRequest, RegisterRequest, Verdict};
use fake::{Fake, Heard, Inside, link, within};

fn registration(heard: Heard) -> Option<RegisterRequest> {
    if let Heard::Register(request, _) = heard { Some(request) } else { None }
}

fn heartbeat(heard: Heard) -> Option<HeartbeatRequest> {
    if let Heard::Heartbeat(request) = heard { Some(request) } else { None }
}

/// Beats as fast as it may.
fn quick() -> Fake {
    let fake = Fake::start();
    fake.script.lock().heartbeat_ms = 1;
    fake
}

#[tokio::test]
async fn a_replica_says_who_it_is_and_then_that_it_is_there() {
    let (mut server, inside) = (quick(), Inside::of(&["a", "b"]));
    let link = link(&[server.address]);
    let _running = link.start(&inside).unwrap();
    let Heard::Register(first, token) = server.heard().await else { panic!("it registers first") };
    assert_eq!((first.id.as_str(), first.epoch, first.endpoint.as_str()), ("replica-1", 7, "http://10.0.0.1:8000"));
    assert_eq!((first.offers.len(), first.draining, token.as_str()), (2, false, "Bearer secret"));
    let mut seq = first.seq;
    for _ in 0..3 {
        let beat = heartbeat(server.heard().await).expect("nothing has changed");
        assert!(beat.seq > seq && beat.registered == first.seq && beat.loads.len() == 2);
        seq = beat.seq;
    }
}

#[tokio::test]
async fn what_changes_is_told_and_what_only_gets_busier_is_no_new_registration() {
    let (mut server, inside) = (Fake::start(), Inside::of(&["a"]));
    let link = link(&[server.address]);
    let _running = link.start(&inside).unwrap();
    let first = server.hears(registration).await;
    let busy = |pending| vec![CapabilityLoad { pending, workers: 1, slots: 1, ..CapabilityLoad::default() }];
    inside.load(busy(7));
    let beat = server.hears(|heard| heartbeat(heard).filter(|beat| beat.loads[0].pending == 7)).await;
    assert_eq!(beat.registered, first.seq);
    inside.serve(&["a", "b"]);
    let second = server.hears(registration).await;
    assert_eq!((second.offers.len(), second.seq > beat.seq), (2, true));
    inside.drain();
    assert!(server.hears(|heard| heartbeat(heard).filter(|beat| beat.registered == second.seq)).await.draining);
}

#[tokio::test]
async fn rules_are_told_and_other_ones_are_a_new_registration() {
    let (mut server, inside) = (Fake::start(), Inside::of(&["a"]));
    inside.upgrade(&["type=a->type=b"]);
    let link = link(&[server.address]);
    let _running = link.start(&inside).unwrap();
    assert_eq!(server.hears(registration).await.upgrades, ["type=a -> type=b"]);
    inside.upgrade(&["type=a -> type=c", "type=b -> type=c"]);
    assert_eq!(server.hears(registration).await.upgrades, ["type=a -> type=c", "type=b -> type=c"]);
}

#[tokio::test]
async fn an_api_server_that_comes_back_empty_knows_the_replica_again() {
    let (mut server, inside) = (quick(), Inside::of(&["a"]));
    let link = link(&[server.address]);
    let _running = link.start(&inside).unwrap();
    let first = server.hears(registration).await;
    server.hears(heartbeat).await;
    let address = server.address;
    server.end().await;
    let mut again = Fake::start_at(address);
    let second = again.hears(registration).await;
    assert!(second.seq > first.seq && second.epoch == first.epoch);
    assert_eq!(again.hears(heartbeat).await.registered, second.seq);
}

#[tokio::test]
async fn who_is_asked_to_register_again_does_and_who_is_outdated_goes_on_with_a_later_number() {
    let (mut server, inside) = (quick(), Inside::of(&["a"]));
    server.script.lock().verdicts = [Verdict::Outdated, Verdict::Accepted, Verdict::RegisterAgain].into();
    let link = link(&[server.address]);
    let _running = link.start(&inside).unwrap();
    server.hears(registration).await;
    assert!(server.hears(registration).await.seq > 1_000, "the newest that the API server has seen");
    server.hears(heartbeat).await;
    server.hears(registration).await;
}

#[tokio::test]
async fn a_replica_whose_id_another_process_has_says_nothing_any_more() {
    let (mut server, inside) = (quick(), Inside::of(&["a"]));
    server.script.lock().verdicts = [Verdict::StaleEpoch].into();
    let link = link(&[server.address]);
    let running = link.start(&inside).unwrap();
    server.hears(registration).await;
    within(running.ended()).await;
    within(link.leave()).await;
}

#[tokio::test]
async fn a_drain_is_told_to_everybody_before_it_is_over_and_so_is_the_departure() {
    let (mut one, mut two, inside) = (Fake::start(), Fake::start(), Inside::of(&["a"]));
    let link = link(&[one.address, two.address]);
    let running = link.start(&inside).unwrap();
    for server in [&mut one, &mut two] {
        server.hears(registration).await;
    }
    within(link.drain()).await;
    for server in [&mut one, &mut two] {
        // It had been sent before, so that it is here.
        let drained = |heard| match heard {
            Heard::Register(request, _) => Some(request.draining),
            Heard::Heartbeat(request) => Some(request.draining),
            Heard::Leave(_) => None,
        };
        while !server.hears(drained).await {}
    }
    within(link.leave()).await;
    for server in [&mut one, &mut two] {
        let left = server.hears(|heard| if let Heard::Leave(request) = heard { Some(request) } else { None }).await;
        assert_eq!((left.id.as_str(), left.epoch), ("replica-1", 7));
    }
    within(running.ended()).await;
}

#[tokio::test]
async fn neither_an_api_server_that_hangs_nor_one_that_is_away_holds_up_the_end_of_a_replica() {
    let (server, inside) = (Fake::start(), Inside::of(&["a"]));
    server.script.lock().hangs = true;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let link = link(&[server.address, away]);
    let running = link.start(&inside).unwrap();
    within(link.drain()).await;
    within(link.leave()).await;
    within(running.ended()).await;
}

#[tokio::test]
async fn a_link_that_announces_nothing_has_nobody_to_tell() {
    let server = Fake::start();
    let link = link(&[server.address]);
    within(link.drain()).await;
    within(link.leave()).await;
}
