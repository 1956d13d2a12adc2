//! T17: keys and tags that look internal.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind};
use crinkle_tests::{Loads, World, pass};

fn names() -> Vec<String> {
    let plain = [
        "v1:L",
        "*",
        "!",
        "\n",
        "\r\n",
        "\0",
        "a\0b",
        "v1:ch",
        "v1:hb:0",
        "v1:e:key",
        "v1:h:key",
        "e:key",
        "shop:",
        "shop:v1:L",
        "shop:v1:e:key",
        "{tag}",
        "key",
        "key ",
        " key",
        "KEY",
        "ключ",
        "key\u{301}",
        "k\u{e9}y",
        "%s%n",
        "\\",
        "\"",
        "'; FLUSHALL",
        "\u{feff}key",
    ];
    let mut names: Vec<String> = plain.iter().map(|name| (*name).to_owned()).collect();
    names.push("x".repeat(512));
    names.push("x".repeat(513));
    names
}

#[tokio::test(start_paused = true)]
async fn keys_that_look_internal_are_only_keys() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let mut keys = names();
    keys.push("x".repeat(32 * 1024));
    keys.push(format!("{}y", "x".repeat(32 * 1024 - 1)));
    for (number, key) in keys.iter().enumerate() {
        let _ = one.cache.set(key, number).await.unwrap();
    }
    pass(Duration::from_millis(50)).await;
    for (number, key) in keys.iter().enumerate() {
        for node in [&one, &two] {
            let read = node.cache.get::<usize>(key).await.unwrap();
            assert_eq!(read.map(|read| *read), Some(number), "{:?}", &key[..key.len().min(20)]);
        }
    }
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        let _ = two.cache.remove(key).await.unwrap();
        pass(Duration::from_millis(1)).await;
        assert!(one.cache.get::<usize>(key).await.unwrap().is_none(), "{number}");
    }
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 2 == 1) {
        assert_eq!(*one.cache.get::<usize>(key).await.unwrap().unwrap(), number);
    }
    assert!(!one.cache.health().ledger_suspect);
    assert_eq!(one.cache.stats().epochs, 0);
}

#[tokio::test(start_paused = true)]
async fn tags_that_look_internal_are_only_tags() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let mut tags: Vec<String> = names().into_iter().filter(|tag| tag.len() <= 255).collect();
    tags.push("t".repeat(255));
    for (number, tag) in tags.iter().enumerate() {
        let key = format!("tagged:{number}");
        let _ = one.cache.set(&key, number).tags([tag.as_str()]).await.unwrap();
        let read = two.cache.get::<usize>(&key).await.unwrap().unwrap();
        assert_eq!(read.meta().tags().collect::<Vec<_>>(), [tag.as_str()]);
    }
    for (number, tag) in tags.iter().enumerate() {
        let _ = two.cache.remove_by_tag(tag.as_str()).await.unwrap();
        pass(Duration::from_millis(1)).await;
        for (other, _) in tags.iter().enumerate() {
            let read = one.cache.get::<usize>(format!("tagged:{other}")).await.unwrap();
            assert_eq!(read.is_none(), other <= number, "{tag:?} removed, {other} asked");
        }
    }
}

/// Prefixes that begin alike share nothing.
#[tokio::test(start_paused = true)]
async fn caches_whose_prefixes_look_alike_share_nothing() {
    let world = World::new().await;
    let prefixes = ["shop:", "shop", "shop::", "shop:v1", "shop:e:", "Shop:", "shop:v", "sho"];
    let mut nodes = Vec::new();
    for prefix in prefixes {
        nodes.push(world.node_with(|builder| builder.key_prefix(prefix)).await);
    }
    let keys = ["key", ":key", "v1:e:key", "e:key", "p:v1:e:key"];
    for (number, node) in nodes.iter().enumerate() {
        for key in keys {
            let _ = node.cache.set(key, number).tags(["tag"]).await.unwrap();
        }
    }
    let _ = nodes[0].cache.remove_by_tag("tag").await.unwrap();
    let _ = nodes[1].cache.remove_all().await.unwrap();
    let _ = nodes[2].cache.remove("key").await.unwrap();
    pass(Duration::from_millis(50)).await;
    for (number, node) in nodes.iter().enumerate() {
        for key in keys {
            let read = node.cache.get::<usize>(key).await.unwrap().map(|read| *read);
            let gone = number < 2 || (number == 2 && key == "key");
            assert_eq!(read, (!gone).then_some(number), "{} {key}", prefixes[number]);
        }
    }
}

#[test]
fn a_prefix_inside_which_another_cache_could_lie_is_refused_by_name() {
    for prefix in ["shop:v1:", "v1:L", "a v", "", "shop:\n", &"x".repeat(129)] {
        let built = crinkle_core::Cache::builder("shop").key_prefix(prefix).build();
        let error = built.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        assert!(error.to_string().contains("key prefix"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_and_tags_out_of_range_are_refused_by_name() {
    let world = World::new().await;
    let node = world.node().await;
    let cache = &node.cache;
    let long = "x".repeat(32 * 1024 + 1);
    for key in ["", &long] {
        let kinds = [
            cache.get::<i32>(key).await.map(drop),
            cache.get_or(key, 1).await.map(drop),
            cache.get_or_set(key, Loads::new().value(1)).await.map(drop),
            cache.set(key, 1).await.map(drop),
            cache.remove(key).await.map(drop),
            cache.expire(key).await.map(drop),
        ];
        for result in kinds {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
            assert!(error.to_string().contains("32768"), "{error}");
        }
        assert!(cache.peek::<i32>(key).is_none());
    }
    let long = "t".repeat(256);
    let many: Vec<String> = (0..33).map(|number| number.to_string()).collect();
    let loads = Loads::new();
    for tags in [vec![String::new()], vec![long.clone()], many.clone()] {
        let results = [
            cache.get_or_set("key", loads.value(1)).tags(tags.clone()).await.map(drop),
            cache.set("key", 1).tags(tags.clone()).await.map(drop),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTag);
            let text = error.to_string();
            assert!(text.contains("255") || text.contains("32"), "{text}");
        }
    }
    assert_eq!(loads.count(), 0, "nothing is loaded for a call that cannot be");
    for tag in ["", &long] {
        assert_eq!(cache.remove_by_tag(tag).await.unwrap_err().kind(), ErrorKind::InvalidTag);
        assert_eq!(cache.expire_by_tag(tag).await.unwrap_err().kind(), ErrorKind::InvalidTag);
        let mixed = cache.remove_by_tags(["fine", tag]).await;
        assert_eq!(mixed.unwrap_err().kind(), ErrorKind::InvalidTag);
    }
    assert_eq!(node.cache.health().pending_removals, 0);
    // Tags that a factory chooses are checked as well, and the key is free again.
    let read = cache.get_or_set("key", move |ctx| {
        ctx.set_tags(many);
        async { crinkle_core::ok(1) }
    });
    assert_eq!(read.await.unwrap_err().kind(), ErrorKind::InvalidTag);
    let options = EntryOptions::default();
    assert_eq!(*cache.get_or_set("key", loads.value(2)).options(options).await.unwrap(), 2);
}
