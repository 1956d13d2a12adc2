//! What a caller can do with an answer: it acts as the value, and tells where it comes from.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{Cache, Cached, FactoryContext, FailSafe, ManualClock};
use serde::{Deserialize, Serialize};

/// A value whose methods have the names of those of an answer's metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    name: String,
    tags: Vec<String>,
}

impl Product {
    fn tags(&self) -> usize {
        self.tags.len()
    }

    fn key(&self) -> &str {
        "own"
    }

    fn age(&self) -> u32 {
        3
    }

    fn into_inner(self) -> String {
        self.name
    }
}

fn tea() -> Product {
    Product { name: "tea".to_owned(), tags: vec!["hot".to_owned()] }
}

async fn cached() -> Cached<Product> {
    let cache = Cache::builder("shop").build().expect("no trouble");
    cache.set("product:1", tea()).tags(["a", "b"]).await.expect("no trouble");
    cache.get("product:1").await.expect("no trouble").expect("no trouble")
}

#[tokio::test]
async fn the_metadata_hides_no_method_of_the_value() {
    let product = cached().await;
    assert_eq!((product.tags(), product.key()), (1, "own"));
    assert_eq!(product.age(), 3);
    assert_eq!((product.is_stale(), product.source()), (false, product.meta().source()));
    assert_eq!(product.meta().key(), "product:1");
    assert!(product.meta().tags().eq(["a", "b"]));
    assert!(!product.meta().is_stale());
    assert_eq!(Cached::into_inner(product).into_inner(), "tea");
}

#[tokio::test]
async fn an_answer_compares_prints_and_serializes_as_its_value() {
    let product = cached().await;
    assert_eq!(product, tea());
    assert_eq!(product, product.clone());
    assert_ne!(product, Product { name: "coffee".to_owned(), ..tea() });
    assert_eq!(AsRef::<Product>::as_ref(&product).name, "tea");
    let json = serde_json::to_string(&product).unwrap();
    assert_eq!(json, r#"{"name":"tea","tags":["hot"]}"#);

    let cache = Cache::builder("shop").build().unwrap();
    let stock = cache.get_or("stock", 7_u32).await.unwrap();
    assert_eq!(format!("{stock} {stock:>3}"), "7   7");
}

#[tokio::test]
async fn the_rest_of_the_ttl_ends_at_zero() {
    let clock = Arc::new(ManualClock::new());
    let cache = Cache::builder("shop").clock(Arc::clone(&clock)).build().unwrap();
    let hour = FailSafe::for_up_to(Duration::from_secs(3600));
    let set = cache.set("price", 5_u32).duration(Duration::from_secs(60)).fail_safe(hour);
    set.await.unwrap();
    clock.advance(Duration::from_secs(20));
    let fresh = cache.get::<u32>("price").await.unwrap().unwrap();
    assert_eq!(fresh.meta().expires_in(), Duration::from_secs(40));
    assert_eq!(fresh.meta().age(), Duration::from_secs(20));
    cache.expire("price").await.unwrap();
    let stale = cache.get::<u32>("price").allow_stale().await.unwrap().unwrap();
    assert_eq!(stale.meta().expires_in(), Duration::ZERO);
    assert_eq!(cache.get_or("stock", 7_u32).await.unwrap().meta().expires_in(), Duration::ZERO);
}

#[tokio::test]
async fn the_validators_of_the_source_come_with_the_answer() {
    let cache = Cache::builder("shop").build().unwrap();
    let load = |ctx: FactoryContext<u32>| async move {
        ctx.set_etag("\"v1\"");
        ctx.set_last_modified("today");
        crinkle_core::ok(1)
    };
    let page = cache.get_or_set("page", load).await.unwrap();
    assert_eq!((page.meta().etag(), page.meta().last_modified()), (Some("\"v1\""), Some("today")));
    let plain = cache.get_or_set("plain", |_| async { crinkle_core::ok(1) }).await.unwrap();
    assert_eq!((plain.meta().etag(), plain.meta().last_modified()), (None, None));
}
