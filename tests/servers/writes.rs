//! Writes of one key from two processes at once: whatever the order, all copies end equal.

use crinkle_testkit::redis::RedisServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::node::Node;

const ROUNDS: usize = 10_000;
const KEYS: usize = 500;

#[test]
fn set_against_set_ends_equal_everywhere() {
    // One in four is a read, so that some writes overlap nothing and their copies stay.
    race(|key, round, side, rng| match rng.random_range(0..4) {
        0 => format!("peek {key}"),
        _ => format!("set {key} {}", round * 2 + side),
    });
}

#[test]
fn set_against_remove_ends_equal_everywhere() {
    race(|key, round, side, rng| match rng.random_range(0..4) {
        0 | 1 => format!("set {key} {}", round * 2 + side),
        2 => format!("load {key} {}", round * 2 + side),
        _ => format!("remove {key}"),
    });
}

/// Both processes act on one key at once, round after round; then every copy is compared.
fn race(command: impl Fn(&str, usize, usize, &mut StdRng) -> String) {
    let server = RedisServer::start();
    let mut nodes = [Node::start(&server.app_url()), Node::start(&server.app_url())];
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..ROUNDS {
        let key = format!("key{}", round % KEYS);
        for (side, node) in nodes.iter_mut().enumerate() {
            node.send(&command(&key, round, side, &mut rng));
        }
        for node in &mut nodes {
            node.reply();
        }
    }
    let mut observer = Node::start(&server.app_url());
    for node in &mut nodes {
        assert_eq!(node.ask("settle"), "settled");
    }
    let mut held = 0;
    for key in (0..KEYS).map(|key| format!("key{key}")) {
        let l2 = observer.ask(&format!("get {key}"));
        for side in 0..nodes.len() {
            let l1 = nodes[side].ask(&format!("peek {key}"));
            if l1 != "none" && l1 != l2 {
                let stats: Vec<_> = nodes.iter_mut().map(|node| node.ask("stats")).collect();
                let again = observer.ask(&format!("get {key}"));
                let seen = observer.ask("stats");
                panic!("{key}: node {side} holds {l1}, L2 {l2}, then {again}; {seen}; {stats:?}");
            }
            held += usize::from(l1 != "none");
        }
    }
    let stats: Vec<_> = nodes.iter_mut().map(|node| node.ask("stats")).collect();
    assert!(
        held > KEYS / 10,
        "almost nothing was held, so nothing was compared: {held}; {stats:?}"
    );
}
