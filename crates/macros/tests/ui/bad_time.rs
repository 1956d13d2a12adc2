use crinkle::cached;

#[cached(cache = CACHE, key = "user", ttl = "60 parsecs")]
async fn unit() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[cached(cache = CACHE, key = "user", ttl = "0s")]
async fn zero() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[cached(cache = CACHE, key = "user", fail_safe = "long")]
async fn fail_safe() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[cached(cache = CACHE, key = "user", stale_while_revalidate = "5m")]
async fn without_ttl() -> Result<u32, crinkle::Error> {
    Ok(1)
}

fn main() {}
