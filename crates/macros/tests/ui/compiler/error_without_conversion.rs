use crinkle::{Cache, cached, invalidates};

#[derive(Debug, thiserror::Error)]
#[error("no such user")]
struct ShopError;

#[cached(cache = cache, key = "user:{id}")]
async fn user(cache: &Cache, id: u32) -> Result<u32, ShopError> {
    Ok(id)
}

#[invalidates(cache = cache, keys = ["user:{id}"])]
async fn rename(cache: &Cache, id: u32) -> Result<(), ShopError> {
    Ok(())
}

fn main() {}
