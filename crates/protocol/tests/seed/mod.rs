//! New cases in every run, and a seed to repeat them.

use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Runs `cases` cases, or `PROPTEST_CASES` many, with the seed `PROPTEST_RNG_SEED` or a new one. A
/// failing test prints the seed.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("PROPTEST_RNG_SEED={seed} has these cases again");
    let rng_seed = RngSeed::Fixed(seed);
    let config =
        ProptestConfig { failure_persistence: None, rng_seed, ..ProptestConfig::default() };
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    if asked { config } else { ProptestConfig { cases, ..config } }
}
