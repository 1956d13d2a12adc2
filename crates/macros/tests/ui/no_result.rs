use crinkle::{cached, invalidates};

#[cached(cache = CACHE, key = "answer")]
async fn answer() -> u64 {
    42
}

#[invalidates(cache = CACHE, keys = ["answer"])]
async fn forget() {}

fn main() {}
