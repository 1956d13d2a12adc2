//! Runs the bodies on their corpus and on seeded mutations of it: no panic, and no allocation out
//! of proportion to the input.

use std::alloc::System;
use std::fs;
use std::path::Path;

use crinkle_fuzz::TARGETS;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many mutations of each file the test runs.
const MUTATIONS: usize = 3000;

/// What a body may allocate: a flat amount, and an amount per byte. (A ledger is read three times.)
const FLAT: usize = 256 << 10;
const PER_BYTE: usize = 1 << 10;

/// The `redis` crate allocates kilobytes for each level of a nested reply, up to its limit of
/// levels.
const FLAT_OF_REPLY: usize = 1 << 20;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|file| file.expect("the corpus is there").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the corpus is there")).collect()
}

/// Applies a few changes: a byte, some bytes, a number at its limits, a cut, a piece of another
/// file.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>, all: &[Vec<u8>]) {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => {
                let mut some = vec![0; random.random_range(0..20)];
                random.fill_bytes(&mut some);
                bytes.splice(at..at, some);
            }
            2 => {
                let limits = [0, 1, 0x7f, 0x80, 0xff];
                let with = vec![limits[random.random_range(0..5)]; random.random_range(1..9)];
                let end = (at + with.len()).min(bytes.len());
                bytes.splice(at..end, with);
            }
            3 => {
                let other = &all[random.random_range(0..all.len())];
                let from = random.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => {}
        }
    }
}

/// A single test, since the allocator counts for the whole process.
#[test]
fn any_bytes_are_something_or_nothing_and_cost_no_more_than_they_are_worth() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let flat = if name == "reply" { FLAT_OF_REPLY } else { FLAT };
        let known = corpus.iter().filter(|bytes| target(bytes)).count();
        assert!(known >= 3, "{name}: the corpus is past the first checks: {known}");
        let mut random = StdRng::seed_from_u64(42);
        for (number, seed) in corpus.iter().enumerate() {
            for round in 0..MUTATIONS {
                let mut bytes = seed.clone();
                if round > 0 {
                    mutate(&mut random, &mut bytes, &corpus);
                }
                let region = Region::new(ALLOCATOR);
                let _ = target(&bytes);
                let cost = region.change().bytes_allocated;
                let most = flat + PER_BYTE * bytes.len();
                assert!(cost <= most, "{name} {number}.{round}: {cost} bytes for {bytes:02x?}");
            }
        }
    }
}
