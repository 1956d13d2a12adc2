//! Random operations on a ledger, in Redis and on an `Authority`: the same answers.

use crinkle_core::l2::L2;
use crinkle_core::protocol::ledger::{
    Advance, Advanced, Authority, MAX_TARGETS, RECENT_IDS, Removal, Strength, SyncAsk, SyncReply,
    Target,
};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const FOR_EVER_MS: u64 = 1_000_000_000_000;
const MAX_BARRIERS: usize = 200_000;
const MINUTE_US: u64 = 60_000_000;

/// A ledger in Redis and its mirror.
struct Pair {
    client: RedisClient,
    store: RedisL2,
    key: String,
    mirror: Authority,
}

impl Pair {
    async fn new(server: &RedisServer, key: &str, cap: usize) -> Self {
        let client = RedisClient::connect(&server.url()).await.unwrap();
        let store = RedisL2::new(client.clone()).with_barriers(cap).tidying_always();
        Self { client, store, key: key.to_owned(), mirror: Authority::with_capacity(cap) }
    }

    async fn now_us(&self) -> u64 {
        let time: (u64, u64) =
            redis::cmd("TIME").query_async(&mut self.client.clone()).await.unwrap();
        time.0 * 1_000_000 + time.1
    }

    /// Lets the server's clock go on.
    async fn pass_ms(&self, ms: u64) {
        let end = self.now_us().await + ms * 1000;
        while self.now_us().await < end {}
    }

    async fn ttl_ms(&mut self) -> u64 {
        redis::cmd("PTTL").arg(&self.key).query_async(&mut self.client).await.unwrap()
    }

    /// The script does not tell its clock, but its number does wherever that depends on it.
    async fn advance(&mut self, ask: &Advance, at: &str) -> Advanced {
        let before = self.now_us().await;
        let theirs = self.store.advance(&self.key, ask, None).await.unwrap();
        for now in [before, theirs.seq, theirs.seq - 1] {
            let mut next = self.mirror.clone();
            if next.advance(now, ask) == theirs {
                self.mirror = next;
                return theirs;
            }
        }
        panic!("{at}: {theirs:?} is not {:?}", self.mirror.advance(before, ask));
    }

    /// The same, with a clock that is a little late if it is not the first: it numbers alike.
    async fn advance_often(&mut self, asks: impl Iterator<Item = Advance>) {
        for (at, ask) in asks.enumerate() {
            let theirs = self.store.advance(&self.key, &ask, None).await.unwrap();
            let now = if at == 0 { theirs.seq - 1 } else { theirs.seq };
            assert_eq!(self.mirror.advance(now, &ask), theirs);
        }
    }

    async fn sync(&mut self, ask: &SyncAsk, at: &str) -> SyncReply {
        let theirs = self.store.sync(&self.key, ask).await.unwrap();
        assert_eq!(theirs, self.mirror.sync(theirs.now_us, ask), "{at}");
        for epoch in [theirs.epoch, ask.new_epoch, Epoch(0x5555)] {
            let frontier = self.store.frontier(&self.key, epoch).await.unwrap();
            assert_eq!(frontier, self.mirror.frontier(epoch), "{at}, {epoch:?}");
        }
        theirs
    }
}

#[tokio::test]
async fn every_ledger_script_does_what_the_authority_does() {
    let server = RedisServer::start();
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let cap = [MAX_BARRIERS, 0, 3, 10][rng.random_range(0..4)];
        let mut pair = Pair::new(&server, &format!("ledger:{seed}"), cap).await;
        let mut seen = pair.sync(&everything(Epoch(seed + 1)), "the first sync").await;
        for step in 0..60 {
            let at = format!("seed {seed}, step {step}");
            if rng.random_bool(0.6) {
                let ask = any_advance(&mut rng, &seen, step);
                pair.advance(&ask, &format!("{at}, {ask:?}")).await;
            } else {
                let ask = any_sync(&mut rng, &seen);
                pair.sync(&ask, &format!("{at}, {ask:?}")).await;
            }
            seen =
                pair.sync(&everything(Epoch(rng.random())), &format!("what is left, {at}")).await;
        }
    }
}

#[tokio::test]
async fn only_the_newest_ids_are_kept() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, "ids", MAX_BARRIERS).await;
    for nonce in 1..=RECENT_IDS as u64 + 50 {
        pair.advance(&removal(nonce, Strength::Hard, &[1]), "filling").await;
    }
    let all = pair.sync(&everything(Epoch(1)), "all").await;
    assert_eq!(all.ids.len(), RECENT_IDS);
    let forgotten =
        SyncAsk { last: Some(Nonce(5)), epoch: Some(all.epoch), ..everything(Epoch(1)) };
    pair.sync(&forgotten, "an id that was dropped").await;
    pair.advance(&removal(5, Strength::Hard, &[1]), "a nonce that was dropped is new again").await;
}

/// Tags 0 to 65,535 are in different registers: nothing is hidden that was not removed.
#[tokio::test]
async fn the_newest_200_000_barriers_are_exact_and_older_ones_are_in_registers() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, "exact", MAX_BARRIERS).await;
    pair.advance_often((1..=3_200).map(|nonce| distinct(nonce, 1 << 16))).await;
    let all = pair.sync(&SyncAsk { page: 300_000, ..everything(Epoch(1)) }, "all").await;
    let exact = all.levels.iter().filter(|(_, target, _)| matches!(target, Target::Tag(_)));
    assert_eq!(exact.count(), MAX_BARRIERS);
    assert_eq!(all.levels.len(), 3_200 * MAX_TARGETS, "each of the others has its register");
    assert_eq!((all.floor.hard, all.floor.soft, all.trim), (0, 0, 0), "nothing became a clear");
}

#[tokio::test]
async fn a_ledger_that_folds_again_and_again_is_bounded() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, "bounded", 500).await;
    pair.advance_often((1..=400).map(|nonce| distinct(nonce, 300))).await;
    pair.sync(&everything(Epoch(1)), "all").await;
    let members: usize =
        redis::cmd("ZCARD").arg("bounded").query_async(&mut pair.client).await.unwrap();
    assert!(members <= 500 + 2 * 300 + 400 + 6, "{members} members for 25,600 tags");
}

/// B8: a caller that asks for less drops nothing that another needs, and does not shorten the ledger's life.
#[tokio::test]
async fn the_longest_retention_that_was_asked_for_is_the_ledgers() {
    const HOUR_MS: u64 = 3_600_000;
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, "retention", MAX_BARRIERS).await;
    let short = |nonce, tag| Advance { retention_ms: 1, ..removal(nonce, Strength::Hard, &[tag]) };
    let asks = |retention_ms| SyncAsk { retention_ms, ..everything(Epoch(1)) };
    pair.sync(&asks(1), "a node with a short one begins the ledger").await;
    pair.advance(&short(1, 1), "alone").await;
    pair.pass_ms(20).await;
    pair.advance(&short(2, 2), "alone, later").await;
    let left = pair.sync(&asks(1), "alone, what is left").await;
    assert_eq!(left.levels.len(), 1, "what is older than the retention goes");
    assert!(left.trim > 0 && left.floor.hard == left.trim);
    pair.sync(&asks(HOUR_MS), "a node with a long one comes").await;
    pair.pass_ms(20).await;
    pair.advance(&short(3, 3), "after it").await;
    let kept = pair.sync(&asks(1), "after it, what is left").await;
    assert_eq!((kept.levels.len(), kept.trim), (2, left.trim), "nothing more goes");
    pair.store = pair.store.clone().visiting();
    pair.advance(&Advance { retention_ms: 0, ..short(4, 4) }, "a visitor").await;
    let life = pair.ttl_ms().await;
    assert!(life > 2 * HOUR_MS - 10_000, "{life} ms");
    let score: f64 =
        redis::cmd("ZSCORE").arg("retention").arg("L").query_async(&mut pair.client).await.unwrap();
    assert!((score * -(2_f64.powi(52)) - 3_600_000.0).abs() < 0.5, "{score}");
}

/// The same of a removal. Where nobody has said for how long, nothing is dropped.
#[tokio::test]
async fn a_removal_says_as_well_for_how_long_removals_are_kept() {
    const HOUR_MS: u64 = 3_600_000;
    let server = RedisServer::start();
    let kept_for = |nonce, retention_ms| {
        let removal = removal(nonce, Strength::Hard, &[nonce.into()]);
        Advance { retention_ms, ..removal }
    };
    for (key, first, then) in [("removal", HOUR_MS, 1), ("nobody", 0, 0)] {
        let mut pair = Pair::new(&server, key, MAX_BARRIERS).await;
        pair.advance(&kept_for(1, first), key).await;
        pair.pass_ms(20).await;
        pair.advance(&kept_for(2, then), key).await;
        let ask = SyncAsk { retention_ms: then, ..everything(Epoch(1)) };
        let kept = pair.sync(&ask, key).await;
        assert_eq!((kept.levels.len(), kept.trim), (2, 0), "{key}");
        let life = pair.ttl_ms().await;
        assert!(life + 10_000 > 2 * first, "{key}: {life} ms");
    }
}

/// The n-th 64 tags, in so many registers; every third of them removed softly.
fn distinct(nonce: u64, registers: u128) -> Advance {
    let strength = if nonce.is_multiple_of(3) { Strength::Soft } else { Strength::Hard };
    let all = (u128::from(nonce) - 1) * MAX_TARGETS as u128..;
    let tags = all.take(MAX_TARGETS).map(|tag| ((tag / registers) << 16) | (tag % registers));
    removal(nonce, strength, &tags.collect::<Vec<_>>())
}

fn any_advance(rng: &mut StdRng, seen: &SyncReply, step: u64) -> Advance {
    let strength = [Strength::Hard, Strength::Soft][rng.random_range(0..2)];
    let nonce = rng.random_range(1..step + 2);
    let mut targets: Vec<_> = (0..rng.random_range(0..6)).map(|_| any_tag(rng)).collect();
    if rng.random_bool(0.1) {
        targets.push(Target::Everything);
    }
    if rng.random_bool(0.1) {
        targets.push(Target::Register(rng.random_range(0..10)));
    }
    Advance {
        removal: Removal { nonce: Nonce(nonce), strength, targets },
        epoch: any_epoch(rng, seen),
        frontier: any_frontier(rng, seen),
        new_epoch: Epoch(rng.random()),
        // What others have asked for counts.
        retention_ms: [0, 1, FOR_EVER_MS][rng.random_range(0..3)],
    }
}

fn any_sync(rng: &mut StdRng, seen: &SyncReply) -> SyncAsk {
    let known = seen.ids.get(rng.random_range(0..seen.ids.len() + 1)).copied();
    let from = match known {
        Some((seq, _)) if rng.random_bool(0.7) => seq,
        _ => any_frontier(rng, seen),
    };
    SyncAsk {
        epoch: any_epoch(rng, seen),
        from,
        frontier: if rng.random_bool(0.7) { from } else { any_frontier(rng, seen) },
        last: if rng.random_bool(0.8) { known.map(|(_, id)| id) } else { Some(Nonce(999)) },
        new_epoch: Epoch(rng.random()),
        page: [1, 2, 5, 64, 4096][rng.random_range(0..5)],
        retention_ms: FOR_EVER_MS,
    }
}

fn any_epoch(rng: &mut StdRng, seen: &SyncReply) -> Option<Epoch> {
    [Some(seen.epoch), Some(seen.epoch), Some(seen.epoch), Some(Epoch(3)), None]
        [rng.random_range(0..5)]
}

/// Behind, level, ahead, and so far ahead that the next operation begins another epoch.
fn any_frontier(rng: &mut StdRng, seen: &SyncReply) -> u64 {
    match rng.random_range(0..40) {
        0..15 => seen.frontier,
        15..25 => seen.frontier - rng.random_range(0..MINUTE_US),
        25..35 => 0,
        35..39 => seen.now_us + MINUTE_US,
        _ => seen.now_us + 60 * MINUTE_US,
    }
}

fn any_tag(rng: &mut StdRng) -> Target {
    let high = [0, 0x80_u128, 0xFF][rng.random_range(0..3)] << 120;
    Target::Tag(TagHash(high + rng.random_range(0..10)))
}

pub(crate) fn removal(nonce: u64, strength: Strength, tags: &[u128]) -> Advance {
    let targets = tags.iter().map(|tag| Target::Tag(TagHash(*tag))).collect();
    Advance {
        removal: Removal { nonce: Nonce(nonce), strength, targets },
        epoch: None,
        frontier: 0,
        new_epoch: Epoch(1),
        retention_ms: FOR_EVER_MS,
    }
}

pub(crate) fn everything(new_epoch: Epoch) -> SyncAsk {
    SyncAsk {
        epoch: None,
        from: 0,
        frontier: 0,
        last: None,
        new_epoch,
        page: 4096,
        retention_ms: FOR_EVER_MS,
    }
}
