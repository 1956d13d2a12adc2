use crinkle::{cached, invalidates};

#[cached(cache = CACHE)]
async fn user(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[invalidates(cache = CACHE)]
async fn rename(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

fn main() {}
