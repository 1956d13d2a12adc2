//! A subscription that is not read: what waits for it is bounded, and it is told that it has lost some, whatever the
//! topology.

use bytes::Bytes;
use crinkle::redis::{RedisBackplane, RedisClient};
use crinkle_core::backplane::{Backplane, Incoming, MemoryBackplane};
use crinkle_testkit::cluster::ClusterServers;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::DEADLINE;
use tokio::time::timeout;

/// Publishes more than may wait, reads what does, and finds that it is told once of the loss and
/// receives what comes next.
async fn overflows(bus: &dyn Backplane, holds: usize) {
    let channels = ["intake:ch".to_owned(), "intake:done".to_owned()];
    let mut slow = bus.subscribe(&channels).await.expect("subscribed");
    let mut quick = bus.subscribe(&channels).await.expect("subscribed");
    let (mut lags, mut heard) = (0, 0);
    for n in 0..holds + 100 {
        let message = Bytes::from(n.to_string());
        bus.publish(&channels[0], message.clone()).await.expect("published");
        let next = timeout(DEADLINE, quick.next()).await.expect("in time");
        assert_eq!(next, Some(Incoming::Message(message)), "a slow one keeps nobody waiting");
    }
    loop {
        // What waits is read before the last is published, which is received by the subscriber that has room again.
        let waits = timeout(std::time::Duration::ZERO, slow.next()).await;
        match waits {
            Ok(Some(Incoming::Lagged)) => lags += 1,
            Ok(Some(Incoming::Message(_))) => heard += 1,
            Ok(_) => panic!("the subscription has ended"),
            Err(_) => break,
        }
    }
    assert_eq!((lags, heard <= holds, heard > 0), (1, true, true), "{heard}");
    bus.publish(&channels[1], Bytes::from_static(b"last")).await.expect("published");
    let next = timeout(DEADLINE, slow.next()).await.expect("in time");
    assert_eq!(next, Some(Incoming::Message(Bytes::from_static(b"last"))));
}

/// As many as `listening` keeps for one subscriber.
const QUEUE: usize = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_read_is_told_what_it_lost_on_one_server() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.app_url()).await.expect("a sound URL");
    overflows(&RedisBackplane::new(client), QUEUE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_read_is_told_what_it_lost_in_a_cluster() {
    let servers = ClusterServers::start();
    let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
    overflows(&RedisBackplane::new(client), QUEUE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_read_is_told_what_it_lost_in_memory() {
    overflows(&MemoryBackplane::with_backlog(1024), 1024).await;
}
