//! Checks that a store keeps unusual keys apart.

use crinkle_core::l2::{L2, record};
use crinkle_core::protocol::record::LoadLock;

use super::{fresh, value};

/// Checks keys that a store might change, truncate, or confuse with internal keys.
pub(super) async fn check<S: L2 + ?Sized>(store: &S, prefix: &str) {
    let long = "k".repeat(32 * 1024);
    let keys = [
        "plain",
        "plain ",
        " plain",
        "PLAIN",
        "",
        "a\0b",
        "a\0c",
        "line\nbreak",
        "\r\n",
        "*",
        "?[a]",
        "{tag}",
        "ключ",
        "\u{e9}",
        "e\u{301}",
        "../../etc",
        "\u{1f980}",
        &long,
    ];
    let base = fresh(prefix, "");
    let key = |name: &str| format!("{base}{name}");
    for (version, name) in (1..).zip(&keys) {
        store.set(&key(name), value(version, name), None, None).await.expect("set");
    }
    for (version, name) in (1..).zip(&keys) {
        let read = store.read(&key(name), None).await.expect("read");
        let found = read.found.unwrap_or_else(|| panic!("the key {name:?} is kept as it is"));
        let head = record::head(&found.bytes).expect("a record");
        assert_eq!(head.version().0, version, "the key {name:?} is a key of its own");
        assert_eq!(read.load_lock, LoadLock::None, "a read without a request takes no load lock");
        store.remove(&key(name), None).await.expect("remove");
    }
    for name in keys {
        let read = store.read(&key(name), None).await.expect("read");
        assert_eq!(read.found, None, "a removed key is absent");
    }
}
