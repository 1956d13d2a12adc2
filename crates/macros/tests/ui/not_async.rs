use crinkle::{cached, invalidates};

#[cached(cache = CACHE, key = "user:{id}")]
fn user(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[invalidates(cache = CACHE, keys = ["user:{id}"])]
fn rename(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user")]
struct User;

fn main() {}
