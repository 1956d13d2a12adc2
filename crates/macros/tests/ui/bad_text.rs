use crinkle::cached;

#[cached(cache = CACHE, key = "user:{}")]
async fn nameless(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{0}")]
async fn numbered(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id + 1}")]
async fn computed(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id")]
async fn open(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:id}")]
async fn closed(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "")]
async fn empty(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = id)]
async fn no_text(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user", tags = "users")]
async fn no_list(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

fn main() {}
