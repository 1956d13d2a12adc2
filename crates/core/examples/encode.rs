//! Measures the cost of decoding what is encoded:
//! `cargo run --release -p crinkle-core --all-features --example encode`.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crinkle_core::l2::{Codec, Json, MessagePack, Postcard};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
    price: Option<f64>,
    stock: BTreeMap<String, Vec<i64>>,
}

fn product(places: usize) -> Product {
    let stock = (0..places).map(|n| (format!("place {n}"), vec![7, -1, 100_000])).collect();
    Product { id: 42, name: "a kettle of a middle size".to_owned(), price: Some(4.5), stock }
}

/// Returns the shortest of many runs, in microseconds.
fn time(mut run: impl FnMut()) -> f64 {
    let one = |run: &mut dyn FnMut()| {
        let began = Instant::now();
        run();
        began.elapsed()
    };
    let end = Instant::now() + Duration::from_millis(300);
    let mut best = one(&mut run);
    while Instant::now() < end {
        best = best.min(one(&mut run));
    }
    best.as_secs_f64() * 1e6
}

fn row<C: Codec<Product>>(name: &str, codec: &C, plain: impl Fn(&Product) -> Vec<u8>) {
    for places in [1, 40, 4000] {
        let value = product(places);
        let bytes = codec.encode(&value).expect("it comes back");
        let alone = time(|| drop(black_box(plain(black_box(&value)))));
        let checked = time(|| drop(black_box(codec.encode(black_box(&value)))));
        let decode = time(|| drop(black_box(codec.decode(black_box(&bytes)))));
        println!("| {name} | {} | {alone:.1} | {checked:.1} | {decode:.1} |", bytes.len());
    }
}

fn main() {
    println!("| codec | bytes | written, us | written and read again, us | read, us |");
    println!("|---|---|---|---|---|");
    row("`MessagePack`", &MessagePack, |v| rmp_serde::to_vec_named(v).expect("sound"));
    row("`Json`", &Json, |v| serde_json::to_vec(v).expect("sound"));
    row("`Postcard`", &Postcard, |v| postcard::to_allocvec(v).expect("sound"));
}
