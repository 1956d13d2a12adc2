//! A key is a string, borrowed or owned.

use std::borrow::Cow;
use std::sync::Arc;

use crinkle_core::{Cache, ok};

#[tokio::test]
async fn every_call_takes_an_owned_key() {
    let cache = Cache::builder("shop").build().unwrap();
    let key = |id: u32| format!("product:{id}");
    assert_eq!(*cache.get_or_set(key(1), |_| async { ok(1) }).await.unwrap(), 1);
    cache.set(key(2), 2).await.unwrap();
    assert_eq!(cache.get::<i32>(key(2)).await.unwrap().as_deref(), Some(&2));
    assert_eq!(cache.peek::<i32>(key(2)).as_deref(), Some(&2));
    assert!(cache.contains(key(2)).await.unwrap());
    cache.expire(key(1)).await.unwrap();
    cache.remove(key(2)).await.unwrap();
    assert_eq!(*cache.get_or(key(2), 7).await.unwrap(), 7);
    cache.remove(key(1)).and_tags(["all"]).await.unwrap();
    assert_eq!(cache.reserve(key(3)).await.unwrap().key(), "product:3");
}

#[tokio::test]
async fn a_request_with_an_owned_key_outlives_the_place_that_made_it() {
    let cache = Cache::builder("shop").build().unwrap();
    let request =
        |id: u32| cache.get_or_set(format!("product:{id}"), move |_| async move { ok(id) });
    assert_eq!(*request(7).await.unwrap(), 7);
    assert_eq!(cache.peek::<u32>("product:7").as_deref(), Some(&7));
}

#[tokio::test]
async fn a_key_may_be_any_kind_of_string() {
    let cache = Cache::builder("shop").build().unwrap();
    cache.set("key", 1).await.unwrap();
    let (owned, shared): (String, Arc<str>) = ("key".to_owned(), "key".into());
    assert!(cache.get::<i32>(&owned).await.unwrap().is_some());
    assert!(cache.get::<i32>(&shared).await.unwrap().is_some());
    assert!(cache.get::<i32>(&"key").await.unwrap().is_some());
    assert!(cache.get::<i32>(Cow::Borrowed("key")).await.unwrap().is_some());
    assert!(cache.get::<i32>(Box::<str>::from("key")).await.unwrap().is_some());
    assert!(cache.get::<i32>(owned).await.unwrap().is_some());
}

#[test]
fn every_blocking_call_takes_an_owned_key() {
    let cache = Cache::builder("shop").build().unwrap().blocking();
    let key = |id: u32| format!("product:{id}");
    assert_eq!(*cache.get_or_set(key(1), |_| ok(1)).unwrap(), 1);
    assert!(cache.set(key(2), 2).unwrap().is_propagated());
    assert_eq!(cache.get::<i32>(key(2)).unwrap().as_deref(), Some(&2));
    assert_eq!(cache.peek::<i32>(key(2)).as_deref(), Some(&2));
    assert!(cache.expire(key(1)).unwrap().is_propagated());
    assert!(cache.remove(key(2)).unwrap().is_propagated());
    assert!(cache.remove_and_tags(key(1), ["all"]).unwrap().is_propagated());
    assert_eq!(*cache.get_or(key(2), 7).unwrap(), 7);
}
