use crinkle::{cached, invalidates};

#[cached(cache = CACHE, key = "user", tll = "60s")]
async fn unknown() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[invalidates(cache = CACHE, key = "user")]
async fn singular() -> Result<(), crinkle::Error> {
    Ok(())
}

#[cached(cache = CACHE, key = "user", key = "name")]
async fn twice() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[cached(cache = CACHE, key = "user", ttl)]
async fn without_value() -> Result<u32, crinkle::Error> {
    Ok(1)
}

fn main() {}
