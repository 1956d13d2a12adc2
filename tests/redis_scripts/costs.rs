//! How many calls the ledger's scripts make on the server.

use crinkle_core::l2::{AnnounceRemoval, L2};
use crinkle_core::protocol::ledger::{Advance, Standing, Strength, SyncAsk, Target};
use crinkle_core::protocol::{Epoch, Nonce};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;
use futures_util::future::join_all;

use crate::ledger::{everything, removal};

/// Far more removals than without folding.
const MANY: u64 = 3_000;

/// Calls that scripts have made since the last question.
async fn calls(client: &RedisClient) -> u64 {
    let mut client = client.clone();
    let info: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
    let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut client).await.unwrap();
    let counted = |line: &&str| {
        let ours = ["cmdstat_evalsha", "cmdstat_info", "cmdstat_config", "cmdstat_script"];
        line.starts_with("cmdstat_") && !ours.iter().any(|ours| line.starts_with(ours))
    };
    let calls = |line: &str| line.split_once("calls=")?.1.split_once(',')?.0.parse::<u64>().ok();
    info.lines().filter(counted).filter_map(calls).sum()
}

async fn open(server: &RedisServer) -> (RedisClient, RedisL2) {
    let client = RedisClient::connect(&server.url()).await.unwrap();
    (client.clone(), RedisL2::new(client))
}

fn announcement() -> AnnounceRemoval {
    AnnounceRemoval { channel: "v1:ch".into(), head: vec![0; 36].into(), tail: vec![0; 36].into() }
}

#[tokio::test]
async fn a_poll_without_news_makes_three_calls() {
    let server = RedisServer::start();
    let (client, store) = open(&server).await;
    let begun = store.sync("L", &everything(Epoch(1))).await.unwrap();
    let known = SyncAsk { epoch: Some(begun.epoch), ..everything(Epoch(2)) };
    let never = SyncAsk { frontier: begun.frontier, ..known.clone() };
    calls(&client).await;
    for _ in 0..10 {
        let reply = store.sync("L", &never).await.unwrap();
        assert_eq!((reply.standing, reply.frontier), (Standing::Current, begun.frontier));
        assert!(reply.complete && reply.last.is_none() && reply.levels.is_empty());
    }
    assert_eq!(calls(&client).await, 40, "without any removal the first member is looked for");
    let seq = store.advance("L", &removal(7, Strength::Hard, &[1]), None).await.unwrap().seq;
    let idle = SyncAsk { from: seq, frontier: seq, last: Some(Nonce(7)), ..known };
    calls(&client).await;
    for _ in 0..10 {
        let reply = store.sync("L", &idle).await.unwrap();
        assert_eq!((reply.standing, reply.frontier), (Standing::Current, seq));
        assert!(reply.complete && reply.last == Some(Nonce(7)) && reply.levels.is_empty());
    }
    assert_eq!(calls(&client).await, 30);
    let ttl: i64 = redis::cmd("PTTL").arg("L").query_async(&mut client.clone()).await.unwrap();
    assert!(ttl > 1_999_999_990_000, "a poll renews the TTL: {ttl}");
}

#[tokio::test]
async fn a_removal_makes_five_calls_and_seldom_more_also_in_a_full_ledger() {
    let server = RedisServer::start();
    for (barriers, most) in [(200_000, 6 * MANY), (500, 6 * MANY)] {
        let (client, store) = open(&server).await;
        let (key, store) = (format!("L{barriers}"), store.with_barriers(barriers));
        store.sync(&key, &everything(Epoch(1))).await.unwrap();
        calls(&client).await;
        let numbers: Vec<_> = (1..=MANY).collect();
        for some in numbers.chunks(100) {
            let ask = |n: &u64| {
                let removal = removal(*n, Strength::Hard, &[u128::from(*n)]);
                Advance { epoch: Some(Epoch(1)), ..removal }
            };
            let asks: Vec<_> = some.iter().map(ask).collect();
            let all = asks.iter().map(|ask| store.advance(&key, ask, Some(announcement())));
            assert!(join_all(all).await.into_iter().all(|numbers| numbers.unwrap().announced));
        }
        let made = calls(&client).await;
        assert!((5 * MANY..most).contains(&made), "{made} calls for {MANY} removals");
        let all = store.sync(&key, &everything(Epoch(1))).await.unwrap();
        let exact = all.levels.iter().filter(|(_, target, _)| matches!(target, Target::Tag(_)));
        let exact = exact.count();
        // 32 removals later, on average, the oldest are folded.
        assert!(exact >= barriers.min(3_000) && exact <= barriers + 1_000, "{exact} barriers");
    }
}
