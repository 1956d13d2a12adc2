//! What may be cached: methods and functions, their arguments and results.

use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use crinkle::{Cache, Cached, ErrorKind, cached};
use crinkle_testkit::chaos::Gate;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Count, ShopError, cache};

#[derive(Clone)]
struct Shop {
    cache: Cache,
    tenant: u32,
    loads: Count,
}

impl Shop {
    fn new() -> Self {
        Self { cache: cache(), tenant: 7, loads: Count::default() }
    }

    #[cached(cache = self.cache, key = "name:{self.tenant}:{id}")]
    async fn name(&self, id: u32) -> Result<String, ShopError> {
        let load = self.loads.next();
        if id == 0 {
            return Err(ShopError::NoSuchProduct(id));
        }
        Ok(format!("{id} for {} in load {load}", self.tenant))
    }

    #[cached(cache = self.cache, key = "found:{text}:{limit:03}")]
    async fn found(&self, text: &str, words: &[String], limit: usize) -> Result<String, ShopError> {
        self.loads.next();
        let text: &str = text;
        Ok(format!("{text} {} {limit}", words.join(" ")))
    }

    #[cached(cache = self.cache, key = "shared:{id}")]
    async fn shared(&self, id: u32) -> Result<Cached<Vec<u32>>, ShopError> {
        Ok(vec![id, self.loads.next()])
    }

    #[cached(cache = self.cache, key = "by arc")]
    async fn by_arc(self: &Arc<Self>) -> Result<u32, ShopError> {
        Ok(self.loads.next())
    }

    #[cached(cache = self.cache, key = "by value")]
    async fn by_value(self) -> Result<u32, ShopError> {
        Ok(self.loads.next())
    }

    #[cached(cache = CACHE, key = "associated:{id}")]
    async fn associated(mut id: u32) -> Result<u32, ShopError> {
        id += 1;
        Ok(Self::twice(id))
    }

    fn twice(id: u32) -> u32 {
        2 * id
    }

    #[cached(cache = self.cache, key = "generic:{id}")]
    async fn generic<T, const N: usize>(
        &self,
        id: impl Display + Send + 'static,
    ) -> Result<T, ShopError>
    where
        T: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        assert_eq!((id.to_string(), N), ("4".to_owned(), self.loads.next() as usize));
        Ok(T::default())
    }
}

static CACHE: LazyLock<Cache> = LazyLock::new(cache);

#[tokio::test(start_paused = true)]
async fn the_body_runs_once_for_each_key() {
    let shop = Shop::new();
    for id in [1, 2, 1, 2] {
        assert_eq!(shop.name(id).await.unwrap(), format!("{id} for 7 in load {id}"));
    }
    assert_eq!(shop.loads.get(), 2);
    let other = Shop { tenant: 8, ..shop.clone() };
    assert_eq!(other.name(1).await.unwrap(), "1 for 8 in load 3", "a field is part of the key");
    assert!(shop.cache.get::<String>("name:8:1").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_callers_of_one_key_share_one_load() {
    #[cached(cache = cache, key = "gated")]
    async fn gated(cache: &Cache, loads: &Count, gate: Gate) -> Result<u32, ShopError> {
        gate.pass().await;
        Ok(loads.next())
    }

    let (cache, loads, gate) = (cache(), Count::default(), Gate::new());
    let open = async {
        gate.reached().await;
        gate.open();
    };
    let call = || gated(&cache, &loads, gate.clone());
    let (one, two, ()) = tokio::join!(call(), call(), open);
    assert_eq!((one.unwrap(), two.unwrap(), loads.get()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn references_reach_the_body_as_they_were() {
    let shop = Shop::new();
    let words = ["a".to_owned(), "b".to_owned()];
    for _ in 0..2 {
        assert_eq!(shop.found("tea", &words, 5).await.unwrap(), "tea a b 5");
    }
    assert_eq!(shop.loads.get(), 1);
    assert!(shop.cache.get::<String>("found:tea:005").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_result_with_cached_shares_the_value() {
    let shop = Shop::new();
    let (one, two) = (shop.shared(3).await.unwrap(), shop.shared(3).await.unwrap());
    assert_eq!(*one, [3, 1]);
    assert!(std::ptr::eq(&*one, &*two), "no copy");
}

#[tokio::test(start_paused = true)]
async fn methods_take_self_in_any_shared_form() {
    let shop = Arc::new(Shop::new());
    assert_eq!((shop.by_arc().await.unwrap(), shop.by_arc().await.unwrap()), (1, 1));
    let by_value = || Shop::clone(&shop).by_value();
    assert_eq!((by_value().await.unwrap(), by_value().await.unwrap()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn functions_without_self_and_generic_ones_are_cached() {
    assert_eq!(Shop::associated(4).await.unwrap(), 10);
    assert_eq!(CACHE.get::<u32>("associated:4").await.unwrap().as_deref(), Some(&10));
    let shop = Shop::new();
    assert_eq!(shop.generic::<String, 1>(4).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_bodys_own_and_is_not_kept() {
    let shop = Shop::new();
    for load in 1..=2 {
        let error = shop.name(0).await.unwrap_err();
        assert!(matches!(error, ShopError::NoSuchProduct(0)), "{error}");
        assert_eq!(shop.loads.get(), load);
    }
    shop.cache.close().await.unwrap();
    let ShopError::Cache(error) = shop.name(1).await.unwrap_err() else {
        panic!("an error of the cache")
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn aliases_of_result_are_results() {
    #[cached(cache = CACHE, key = "anyhow")]
    async fn parsed() -> anyhow::Result<u32> {
        Ok("42".parse()?)
    }
    assert_eq!(parsed().await.unwrap(), 42);
}

/// The names of the expansion are its own.
#[tokio::test(start_paused = true)]
async fn arguments_may_have_any_name() {
    #[cached(cache = CACHE, key = "names:{key}:{load}:{this}:{ctx}:{cached}", tags = ["{loaded}"], when = |loaded| *loaded > 0)]
    async fn sum(
        key: u32,
        load: u32,
        this: u32,
        ctx: u32,
        cached: u32,
        loaded: u32,
    ) -> Result<u32, ShopError> {
        Ok(key + load + this + ctx + cached + loaded)
    }
    assert_eq!(sum(1, 2, 3, 4, 5, 6).await.unwrap(), 21);
    assert_eq!(CACHE.get::<u32>("names:1:2:3:4:5").await.unwrap().as_deref(), Some(&21));
}

/// Counts its clones.
#[derive(Debug, Default)]
struct Counted(Count);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.next();
        Self(self.0.clone())
    }
}

/// The documentation says so.
#[tokio::test(start_paused = true)]
async fn a_hit_clones_only_the_references_that_the_body_uses() {
    #[cached(cache = CACHE, key = "clones:{by_key:?}")]
    async fn call(by_key: &Counted, by_body: &Counted, moved: Counted) -> Result<u32, ShopError> {
        assert_eq!((by_body.0.get(), moved.0.get()), (1, 0));
        Ok(1)
    }
    let [by_key, by_body, moved] = [(); 3].map(|()| Counted::default());
    let clones = moved.0.clone();
    let _ = call(&by_key, &by_body, moved).await.unwrap();
    assert_eq!((by_key.0.get(), by_body.0.get(), clones.get()), (0, 1, 0), "a miss");
    let _ = call(&by_key, &by_body, Counted::default()).await.unwrap();
    assert_eq!((by_key.0.get(), by_body.0.get(), clones.get()), (0, 2, 0), "a hit");
}
