use crinkle::{cached, invalidates};

#[cached(key = "user:{id}")]
async fn user(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[invalidates(keys = ["user:{id}"])]
async fn rename(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

fn main() {}
