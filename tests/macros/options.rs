//! What the other arguments of `#[cached]` do.

use std::time::Duration;

use crinkle::{Cache, FailSafe, cached};
use crinkle_tests::pass;

use crate::{Count, ShopError, cache};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[derive(Clone)]
struct Shop {
    cache: Cache,
    tenant: String,
    loads: Count,
}

impl Shop {
    fn new() -> Self {
        Self { cache: cache(), tenant: "a".into(), loads: Count::default() }
    }

    /// The number of the load, or an error for what `fails`.
    fn load(&self, fails: bool) -> Result<u32, ShopError> {
        let load = self.loads.next();
        if fails { Err(ShopError::NoSuchProduct(load)) } else { Ok(load) }
    }

    #[cached(cache = self.cache, key = "fixed", tags = ["all"])]
    async fn fixed(&self) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "tagged:{id}", tags = ["all", "tenant:{self.tenant}", "id:{id}"])]
    async fn tagged(&self, id: &str) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "minute", ttl = "1m 500ms")]
    async fn minute(&self) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "chosen", ttl = ttl)]
    async fn chosen(&self, ttl: Duration) -> Result<u32, ShopError> {
        let _ = ttl;
        self.load(false)
    }

    #[cached(cache = self.cache, key = "safe", ttl = "10s", fail_safe = "1h", skip_err)]
    async fn safe(&self, fails: bool) -> Result<u32, ShopError> {
        self.load(fails)
    }

    #[cached(cache = self.cache, key = "day", ttl = "10s", fail_safe)]
    async fn day(&self, fails: bool) -> Result<u32, ShopError> {
        self.load(fails)
    }

    #[cached(cache = self.cache, key = "hour", ttl = "10s", fail_safe = FailSafe::for_up_to(secs(3600)).throttle(secs(1)))]
    async fn hour(&self, fails: bool) -> Result<u32, ShopError> {
        self.load(fails)
    }

    #[cached(cache = self.cache, key = "swr", ttl = "10s", stale_while_revalidate = "5m")]
    async fn revalidated(&self) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "swr", ttl = secs(10), stale_while_revalidate = secs(300))]
    async fn revalidated_by_expressions(&self) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "when", when = |load| *load >= least)]
    async fn when(&self, least: u32) -> Result<u32, ShopError> {
        self.load(false)
    }

    #[cached(cache = self.cache, key = "error", skip_err, when = |load| load % 2 == 0)]
    async fn skip_err(&self, fails: bool) -> Result<u32, ShopError> {
        self.load(fails)
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_by_any_of_the_tags_reaches_the_entry() {
    let shop = Shop::new();
    for (load, tag) in (1..).zip(["all", "tenant:a", "id:7", "all"]) {
        assert_eq!(shop.tagged("7").await.unwrap(), load);
        assert_eq!(shop.tagged("7").await.unwrap(), load);
        shop.cache.remove_by_tag(tag).await.unwrap();
    }
    assert_eq!(shop.fixed().await.unwrap(), 5);
    shop.cache.remove_by_tag("all").await.unwrap();
    assert_eq!(shop.fixed().await.unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn the_ttl_is_a_text_or_an_expression() {
    let shop = Shop::new();
    for (wait, load) in [(0, 1), (60_499, 1), (1, 2)] {
        pass(Duration::from_millis(wait)).await;
        assert_eq!(shop.minute().await.unwrap(), load);
    }
    for (wait, load) in [(0, 3), (4_999, 3), (1, 4)] {
        pass(Duration::from_millis(wait)).await;
        assert_eq!(shop.chosen(secs(5)).await.unwrap(), load);
    }
}

#[tokio::test(start_paused = true)]
async fn fail_safe_answers_when_the_body_fails() {
    let shop = Shop::new();
    assert_eq!(shop.safe(false).await.unwrap(), 1);
    pass(secs(3_500)).await;
    assert_eq!((shop.safe(true).await.unwrap(), shop.loads.get()), (1, 2));
    pass(secs(200)).await;
    assert!(shop.safe(true).await.is_err(), "older than an hour");

    assert_eq!(shop.day(false).await.unwrap(), 4);
    pass(secs(86_000)).await;
    assert_eq!(shop.day(true).await.unwrap(), 4);

    assert_eq!(shop.hour(false).await.unwrap(), 6);
    for load in 7..9 {
        pass(secs(11)).await;
        assert_eq!((shop.hour(true).await.unwrap(), shop.loads.get()), (6, load), "throttle: 1 s");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_ttl_the_old_value_is_answered_while_one_load_replaces_it() {
    for by_expressions in [false, true] {
        let shop = Shop::new();
        let read = async || match by_expressions {
            true => shop.revalidated_by_expressions().await.unwrap(),
            false => shop.revalidated().await.unwrap(),
        };
        assert_eq!(read().await, 1);
        pass(Duration::from_millis(9_990)).await;
        assert_eq!((read().await, shop.loads.get()), (1, 1), "the TTL");
        pass(Duration::from_millis(20)).await;
        assert_eq!(read().await, 1, "the old value at once");
        pass(Duration::from_millis(10)).await;
        assert_eq!((read().await, shop.loads.get()), (2, 2));
        pass(secs(311)).await;
        assert_eq!(read().await, 3, "too old: the caller waits");
    }
}

#[tokio::test(start_paused = true)]
async fn when_decides_what_is_kept() {
    let shop = Shop::new();
    for load in 1..=2 {
        assert_eq!(shop.when(3).await.unwrap(), load, "answered, not kept");
    }
    assert_eq!((shop.when(3).await.unwrap(), shop.when(3).await.unwrap()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn skip_err_keeps_no_error_and_leaves_when_to_values() {
    let shop = Shop::new();
    assert!(shop.skip_err(true).await.is_err());
    assert_eq!((shop.skip_err(false).await.unwrap(), shop.skip_err(true).await.unwrap()), (2, 2));
}
