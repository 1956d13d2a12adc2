//! The values and keys of the rows.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};

/// The number of hot keys.
pub(crate) const HOT: usize = 1_000;

/// The number of draws before they repeat.
const DRAWS: usize = 8_192;

/// The cached value: a product of 100 bytes, including its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: u64,
    name: String,
    pub(crate) price_cents: u32,
    in_stock: bool,
}

impl Product {
    pub(crate) fn new(id: usize) -> Self {
        Self {
            id: id as u64,
            name: format!("A product with a name of some usual length, number {id:09}"),
            price_cents: 19_99,
            in_stock: true,
        }
    }

    /// A product whose price is its version.
    pub(crate) fn version(id: usize, version: u32) -> Self {
        Self { price_cents: version, ..Self::new(id) }
    }
}

/// The key of a product.
pub(crate) fn key(id: usize) -> String {
    format!("product:{id}")
}

/// Keys and the order of their reads: by Zipf's law (exponent 0.99), seeded.
pub(crate) struct Draws {
    pub(crate) keys: Vec<String>,
    order: Vec<u32>,
}

impl Draws {
    pub(crate) fn hot() -> Self {
        Self::of(HOT)
    }

    pub(crate) fn of(keys: usize) -> Self {
        let draws = DRAWS.max(keys);
        let order = zipf(keys, 1).take(draws).map(|at| at as u32).collect();
        Self { keys: (0..keys).map(key).collect(), order }
    }

    /// Returns `n` keys in the order of the draws.
    pub(crate) fn take(&self, n: u64) -> impl Iterator<Item = &String> {
        let order = self.order.iter().cycle().take(n as usize);
        order.map(|at| &self.keys[*at as usize])
    }

    /// Returns the sum of the ids of the same products.
    pub(crate) fn sum(&self, n: u64) -> u64 {
        self.order.iter().cycle().take(n as usize).map(|at| u64::from(*at)).sum()
    }
}

/// Draws numbers below `n` by Zipf's law, endlessly; the same for the same seed. Popular numbers
/// are spread.
pub(crate) fn zipf(n: usize, seed: u64) -> impl Iterator<Item = usize> {
    let law = Zipf::new(n as f64, 0.99).expect("the parameters are sound");
    let mut random = StdRng::seed_from_u64(seed);
    // A step without a common divisor with most sizes, so that popular ranks are not neighbours.
    std::iter::repeat_with(move || {
        let rank = law.sample(&mut random) as usize - 1;
        rank.wrapping_mul(2_654_435_761) % n
    })
}
