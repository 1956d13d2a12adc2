//! T12 on a real server: every subscription is killed while a key and a tag change.

use std::time::Duration;

use crinkle::Cache;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{ask, comes_true, node_at, raw};
use tokio::time::{Instant, sleep};

const ROUNDS: u64 = 12;
/// Far below the ten minutes that the entries live, and the half minute that a node trusts what it holds unheard.
const BOUND: Duration = Duration::from_secs(15);

/// How many listen, as the server says: a node may not have noticed yet that it does not.
async fn listeners(server: &RedisServer) -> usize {
    let list: Option<String> = ask(&server.url(), &["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    list.map_or(0, |list| list.lines().count())
}

/// What the reader sees: it loads what is not there.
async fn read(reader: &Cache, key: &str, source: u64) -> u64 {
    let load = move |_| async move { crinkle::ok(source) };
    *reader.get_or_set(key, load).tags(["tag"]).await.expect("a value")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_subscription_hides_no_change_of_a_key_or_a_tag() {
    let server = RedisServer::start();
    let (writer, reader) = (node_at(&server.app_url()).await, node_at(&server.app_url()).await);
    let mut raw = raw(&server.url()).await.expect("a connection");
    let (mut slowest, mut killed) = (Duration::ZERO, 0);
    for round in 1..=ROUNDS {
        for key in ["key", "tagged"] {
            read(&reader, key, round * 2).await;
        }
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("pubsub");
        killed += kill.query_async::<u64>(&mut raw).await.expect("an answer");
        writer.set("key", round * 2 + 1).tags(["other"]).await.expect("stored");
        writer.remove_by_tag("tag").await.expect("removed");
        let began = Instant::now();
        // From now on the source says this.
        let source = round * 2 + 1;
        while read(&reader, "key", source).await != source
            || read(&reader, "tagged", source).await != source
        {
            assert!(began.elapsed() < BOUND, "round {round}: still old after {BOUND:?}");
            sleep(Duration::from_millis(5)).await;
        }
        slowest = slowest.max(began.elapsed());
        writer.remove_many(["key", "tagged"]).await.expect("removed");
        // The pauses get longer, as no subscription lives for long.
        comes_true("both listen again", async || {
            writer.health().subscribed
                && reader.health().subscribed
                && listeners(&server).await == 2
        })
        .await;
    }
    assert!(killed >= ROUNDS * 2, "subscriptions were killed: {killed}");
    println!("{ROUNDS} rounds, {killed} subscriptions killed, right after {slowest:?} at most");
}
