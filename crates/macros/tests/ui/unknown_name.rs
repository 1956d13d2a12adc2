use crinkle::{Cache, cached, invalidates};

#[cached(cache = CACHE, key = "user:{idd}")]
async fn key(id: u32, tenant: u32) -> Result<u32, crinkle::Error> {
    Ok(id + tenant)
}

#[cached(cache = CACHE, key = "user", tags = ["users", "tenant:{tenant}"])]
async fn tag() -> Result<u32, crinkle::Error> {
    Ok(1)
}

#[cached(cache = CACHE, key = "user:{self.id}")]
async fn field(id: u32) -> Result<u32, crinkle::Error> {
    Ok(id)
}

struct Shop {
    cache: Cache,
}

impl Shop {
    #[invalidates(cache = self.cache, keys = ["user:{id}", "name:{name}"])]
    async fn rename(&self, id: u32) -> Result<u32, crinkle::Error> {
        Ok(id)
    }
}

fn main() {}
