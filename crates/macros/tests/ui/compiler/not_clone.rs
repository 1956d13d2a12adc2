use crinkle::{Cache, Error, cached};

struct Shop {
    cache: Cache,
    names: Vec<String>,
}

impl Shop {
    #[cached(cache = self.cache, key = "name:{id}")]
    async fn name(&self, id: usize) -> Result<String, Error> {
        Ok(self.names[id].clone())
    }
}

struct Filter(u32);

#[cached(cache = cache, key = "filtered")]
async fn filtered(cache: &Cache, filter: &Filter) -> Result<u32, Error> {
    Ok(filter.0)
}

fn main() {}
