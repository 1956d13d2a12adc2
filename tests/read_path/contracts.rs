//! What the types promise at compile time.

use std::fmt::Debug;
use std::mem::size_of;
use std::rc::Rc;

use crinkle_core::backplane::Backplane;
use crinkle_core::l2::{L2, NoCodec};
use crinkle_core::{Cache, Cached, Clock, Error, FactoryContext, Receipt, ok};

fn sent<T: Send>(_: &T) {}
fn shared<T: Send + Sync + Clone + Debug + 'static>() {}

#[test]
fn handles_answers_and_errors_go_anywhere() {
    shared::<Cache>();
    shared::<Cache<NoCodec>>();
    shared::<Cached<String>>();
    shared::<FactoryContext<String>>();
    shared::<Error>();
    shared::<Receipt>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Error>>(), size_of::<usize>());
}

#[test]
fn stores_backplanes_and_clocks_are_object_safe() {
    fn object<T: ?Sized + Debug + Send + Sync>() {}
    object::<dyn L2>();
    object::<dyn Backplane>();
    object::<dyn Clock>();
}

#[tokio::test]
async fn every_future_is_send() {
    let cache = Cache::builder("shop").build().unwrap();
    let get_or_set = cache.get_or_set("key", |_| async { ok(1) }).tags(["tag"]).into_future();
    sent(&get_or_set);
    sent(&cache.get::<i32>("key").into_future());
    sent(&cache.get_or("key", 1).into_future());
    sent(&cache.set("key", 1).into_future());
    sent(&cache.remove("key").into_future());
    sent(&cache.expire("key").into_future());
    sent(&cache.remove_by_tag("tag").into_future());
    sent(&cache.remove_all().into_future());
    sent(&cache.ready());
    sent(&cache.close());
    // Whatever else the caller holds: nothing is demanded of it.
    let local = Rc::new(1);
    assert_eq!(*get_or_set.await.unwrap() + *local, 2);
}
