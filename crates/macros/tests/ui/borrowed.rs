use std::fmt::Debug;

use crinkle::{Cache, cached};

#[cached(cache = CACHE, key = "user:{id:?}")]
async fn inside(id: Option<&str>) -> Result<bool, crinkle::Error> {
    Ok(id.is_some())
}

#[cached(cache = CACHE, key = "users:{ids:?}")]
async fn twice(ids: &[&str]) -> Result<usize, crinkle::Error> {
    Ok(ids.len())
}

#[cached(cache = CACHE, key = "user:{id:?}")]
async fn object(id: &dyn Debug) -> Result<String, crinkle::Error> {
    Ok(format!("{id:?}"))
}

#[cached(cache = CACHE, key = "user")]
async fn exclusive(id: &mut u32) -> Result<u32, crinkle::Error> {
    Ok(*id)
}

#[cached(cache = CACHE, key = "user:{id}")]
async fn pattern((id, name): (u32, String)) -> Result<String, crinkle::Error> {
    Ok(format!("{id} {name}"))
}

struct Shop {
    cache: Cache,
}

impl Shop {
    #[cached(cache = self.cache, key = "user:{id}")]
    async fn user(&mut self, id: u32) -> Result<u32, crinkle::Error> {
        Ok(id)
    }
}

fn main() {}
