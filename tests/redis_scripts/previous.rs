//! Nodes of the previous version on the same ledger, during a roll-out: their scripts, and this
//! version's, give the same answers.

use crinkle_core::l2::L2;
use crinkle_core::protocol::ledger::{
    Advance, Advanced, Authority, RECENT_IDS, Strength, SyncAsk, SyncReply, Target,
};
use crinkle_core::protocol::{Epoch, Nonce};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redis::{Script, Value};

use crate::ledger::{everything, removal};

const ADVANCE: &str =
    concat!(include_str!("previous/ledger.lua"), include_str!("previous/advance.lua"));
const SYNC: &str = concat!(include_str!("previous/ledger.lua"), include_str!("previous/sync.lua"));
const NEW_SYNC: &str = concat!(
    include_str!("../../crates/l2-redis/src/scripts/ledger.lua"),
    include_str!("../../crates/l2-redis/src/scripts/sync.lua")
);

const KEY: &str = "L";
const CAP: usize = 10;

/// Runs a `SYNC` of one version.
async fn sync(client: &RedisClient, script: &str, ask: &SyncAsk) -> Vec<Value> {
    let script = Script::new(script);
    let mut call = script.key(KEY);
    call.arg(2 * ask.retention_ms).arg(bytes(ask.new_epoch.0));
    call.arg(ask.epoch.map_or_else(Vec::new, |epoch| bytes(epoch.0))).arg(ask.from);
    call.arg(ask.frontier).arg(ask.last.map_or_else(Vec::new, |id| bytes(id.0))).arg(ask.page);
    call.arg(ask.retention_ms).invoke_async(&mut client.clone()).await.unwrap()
}

/// Runs the previous version's `ADVANCE`.
async fn advance(client: &RedisClient, ask: &Advance) -> Advanced {
    let script = Script::new(ADVANCE);
    let mut call = script.key(KEY);
    call.arg(2 * ask.retention_ms.max(60_000)).arg(bytes(ask.new_epoch.0));
    call.arg(bytes(ask.removal.nonce.0));
    call.arg(ask.epoch.map_or_else(Vec::new, |epoch| bytes(epoch.0))).arg(ask.frontier);
    call.arg(ask.retention_ms).arg(CAP).arg(RECENT_IDS).arg("").arg("").arg("");
    for target in &ask.removal.targets {
        call.arg(member(ask.removal.strength, *target));
    }
    let (epoch, prev, seq, announced): (Vec<u8>, Option<Vec<u8>>, u64, bool) =
        call.invoke_async(&mut client.clone()).await.unwrap();
    let number = |bytes: Vec<u8>| u64::from_be_bytes(bytes.try_into().unwrap());
    Advanced { epoch: Epoch(number(epoch)), prev: prev.map(|id| Nonce(number(id))), seq, announced }
}

fn bytes(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn member(strength: Strength, target: Target) -> Vec<u8> {
    let letter = if strength == Strength::Hard { 'h' } else { 's' };
    match target {
        Target::Everything => format!("F{}", letter.to_ascii_uppercase()).into_bytes(),
        Target::Register(register) => {
            [&[letter.to_ascii_uppercase() as u8][..], &register.to_be_bytes()].concat()
        }
        Target::Tag(tag) => [&[letter as u8][..], &tag.0.to_be_bytes()].concat(),
    }
}

/// Asks both versions the same. Only the server's time may differ.
async fn same_sync(client: &RedisClient, ask: &SyncAsk, at: &str) {
    let (mut old, mut new) = (sync(client, SYNC, ask).await, sync(client, NEW_SYNC, ask).await);
    (old[3], new[3]) = (Value::Nil, Value::Nil);
    assert_eq!(old, new, "{at}, {ask:?}");
}

#[tokio::test]
async fn nodes_of_both_versions_share_a_ledger() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.url()).await.unwrap();
    let store = RedisL2::new(client.clone()).with_barriers(CAP).tidying_always();
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let () = redis::cmd("DEL").arg(KEY).query_async(&mut client.clone()).await.unwrap();
        let (begin, mut mirror) = (everything(Epoch(seed + 1)), Authority::with_capacity(CAP));
        let mut seen = store.sync(KEY, &begin).await.unwrap();
        assert_eq!(seen, mirror.sync(seen.now_us, &begin));
        for step in 1..50 {
            let at = format!("seed {seed}, step {step}");
            let ask = any_advance(&mut rng, &seen, step);
            let numbers = if rng.random_bool(0.5) {
                advance(&client, &ask).await
            } else {
                store.advance(KEY, &ask, None).await.unwrap()
            };
            assert_eq!(mirror.advance(numbers.seq, &ask), numbers, "{at}");
            let known = seen.ids.get(rng.random_range(0..=seen.ids.len())).copied();
            let (from, last) = known.map_or((0, None), |(seq, id)| (seq, Some(id)));
            let behind =
                SyncAsk { epoch: Some(seen.epoch), from, frontier: from, last, ..begin.clone() };
            same_sync(&client, &behind, &at).await;
            seen = store.sync(KEY, &begin).await.unwrap();
            assert_eq!(seen, mirror.sync(seen.now_us, &begin), "{at}");
            let (from, last) = (seen.frontier, seen.last);
            let level = SyncAsk { from, frontier: from, last, ..behind };
            same_sync(&client, &level, &at).await;
            same_sync(&client, &SyncAsk { from: 0, last: None, ..level }, &at).await;
        }
    }
}

fn any_advance(rng: &mut StdRng, seen: &SyncReply, step: u64) -> Advance {
    let strength = [Strength::Hard, Strength::Soft][rng.random_range(0..2)];
    let tags: Vec<_> = (0..rng.random_range(0..6)).map(|_| rng.random_range(0..40)).collect();
    let frontier = if rng.random_bool(0.5) { seen.frontier } else { 0 };
    let mut ask = Advance { epoch: Some(seen.epoch), frontier, ..removal(step, strength, &tags) };
    if rng.random_bool(0.1) {
        ask.removal.targets.push(Target::Everything);
    }
    ask
}
