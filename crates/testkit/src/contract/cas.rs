//! Checks a store with compare-and-swap: comparison, tokens and order of answers.

use std::time::Duration;

use bytes::Bytes;
use crinkle_l2_cas::{CasStore, Stored};

use super::{PATIENCE, fresh};

pub(super) async fn check<S: CasStore>(store: &S, prefix: &str) {
    let key = |what| fresh(prefix, what);
    compares(store, &key("compare")).await;
    never_fits_again(store, &key("again")).await;
    keeps_bytes(store, &key("bytes")).await;
    answers_in_order(store, [key("one"), key("two"), key("three")]).await;
    let before = store.now_us();
    store.get(&key("time")).await.expect("get");
    let second = 1_000_000;
    assert!(store.now_us() + second >= before, "the clock of a store advances");
}

async fn compares<S: CasStore>(store: &S, key: &str) {
    assert!(store.get(key).await.expect("get").is_none(), "an unknown key is absent");
    assert!(swap(store, key, None, "one").await, "a swap without a token creates an absent key");
    assert!(
        !swap(store, key, None, "two").await,
        "a swap without a token does not replace a value"
    );
    let (first, same) = (token(store, key).await, token(store, key).await);
    assert!(swap(store, key, Some(first), "two").await, "a token fits until the key changes");
    assert!(!swap(store, key, Some(same), "three").await, "and fits once");
    assert_eq!(bytes(store, key).await, "two", "a refused swap changes nothing");
    store.delete(key).await.expect("delete");
    store.delete(key).await.expect("deleting nothing is no error");
    assert!(store.get(key).await.expect("get").is_none(), "a deleted key is absent");
}

async fn never_fits_again<S: CasStore>(store: &S, key: &str) {
    assert!(swap(store, key, None, "same").await);
    let (old, older) = (token(store, key).await, token(store, key).await);
    let now = token(store, key).await;
    assert!(swap(store, key, Some(now), "same").await);
    assert!(!swap(store, key, Some(older), "late").await, "the same bytes are another state");
    store.delete(key).await.expect("delete");
    assert!(swap(store, key, None, "same").await, "a deleted key can be created again");
    let what = "a token from before a deletion does not fit a later value";
    assert!(!swap(store, key, Some(old), "late").await, "{what}");
    assert_eq!(bytes(store, key).await, "same", "{what}");
    let gone = token(store, key).await;
    store.delete(key).await.expect("delete");
    assert!(!swap(store, key, Some(gone), "late").await, "a token creates nothing");
}

async fn keeps_bytes<S: CasStore>(store: &S, key: &str) {
    let every: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let value = Stored { bytes: every.clone().into(), ttl_ms: 60_000, lasting: true };
    assert!(store.swap(key, None, value).await.expect("swap"), "64 KiB fit");
    assert!(bytes(store, key).await == every, "a value is kept byte for byte");
    let brief = Stored { bytes: "brief".into(), ttl_ms: 1, lasting: false };
    let now = token(store, key).await;
    assert!(store.swap(key, Some(now), brief).await.expect("swap"), "a TTL may be short");
    let forgotten = async {
        while bytes_if_any(store, key).await.is_some_and(|bytes| bytes != "brief") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, forgotten).await.is_ok(),
        "a short-lived value is returned whole or not at all"
    );
}

async fn answers_in_order<S: CasStore>(store: &S, [one, two, three]: [String; 3]) {
    swap(store, &one, None, "one").await;
    swap(store, &three, None, "three").await;
    let keys = [three.clone(), two, one, three];
    let all = store.get_many(&keys).await.expect("get_many");
    let all: Vec<_> = all.into_iter().map(|held| held.map(|held| held.bytes)).collect();
    let expected = [Some("three"), None, Some("one"), Some("three")];
    assert_eq!(
        all,
        expected.map(|some| some.map(Bytes::from)),
        "several values are in the order of their keys"
    );
    assert!(store.get_many(&[]).await.expect("get_many").is_empty(), "no keys give no answers");
}

async fn swap<S: CasStore>(store: &S, key: &str, seen: Option<S::Token>, bytes: &str) -> bool {
    let value =
        Stored { bytes: Bytes::copy_from_slice(bytes.as_bytes()), ttl_ms: 60_000, lasting: true };
    store.swap(key, seen, value).await.expect("swap")
}

async fn token<S: CasStore>(store: &S, key: &str) -> S::Token {
    store.get(key).await.expect("get").expect("a stored value is there").token
}

async fn bytes<S: CasStore>(store: &S, key: &str) -> Bytes {
    bytes_if_any(store, key).await.expect("a stored value is there")
}

async fn bytes_if_any<S: CasStore>(store: &S, key: &str) -> Option<Bytes> {
    store.get(key).await.expect("get").map(|held| held.bytes)
}
