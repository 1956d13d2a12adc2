//! Three regions with a private Redis server each. A removal in one region takes effect in the
//! others, each with its own ledger. One region fails for a while: the others are not affected, and
//! it catches up.
//!
//! ```text
//! cargo run --release --example regions        (needs redis-server on the PATH)
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions};
use crinkle_examples::{Expectations, human, now};
use crinkle_testkit::redis::RedisServer;
use tokio::time::sleep;

const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// Builds a node in the region `home`. Every node gets the same list and ignores its own region.
async fn node(home: usize, urls: &[String]) -> Result<Cache> {
    let client = RedisClient::connect(&urls[home]).await?;
    let mut builder = Cache::builder("shop")
        .default_options(EntryOptions::new(Duration::from_secs(600)))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client));
    for (name, url) in REGIONS.iter().zip(urls) {
        let client = RedisClient::connect(url).await?;
        builder = builder.region(*name, RedisL2::new(client.clone()), RedisBackplane::new(client));
    }
    let cache = builder.build()?;
    cache.ready().await?;
    Ok(cache)
}

/// Waits until the price is gone; returns how long that took.
async fn gone(cache: &Cache, key: &str) -> Result<Duration> {
    let began = now();
    while cache.get::<u32>(key).allow_stale().await?.is_some() {
        ensure!(now().since(began) < Duration::from_secs(30), "{key} is still there");
        sleep(Duration::from_millis(1)).await;
    }
    Ok(now().since(began))
}

async fn fill(nodes: &[Cache], key: &str) -> Result<()> {
    for node in nodes {
        node.get_or_set(key, |_| async { crinkle::ok(1_999_u32) }).tags(["prices"]).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut show = Expectations::new();
    let servers: Vec<_> = REGIONS.iter().map(|_| RedisServer::start()).collect();
    let urls: Vec<_> = servers.iter().map(RedisServer::url).collect();
    let mut nodes = Vec::new();
    for home in 0..REGIONS.len() {
        nodes.push(node(home, &urls).await?);
    }
    let (eu, us, ap) = (&nodes[0], &nodes[1], &nodes[2]);

    println!("All regions have a price. The node in eu removes it by its tag:");
    fill(&nodes, "price:1").await?;
    eu.remove_by_tag("prices").await?;
    println!("  gone in us after {}", human(gone(us, "price:1").await?));
    println!("  gone in ap after {}", human(gone(ap, "price:1").await?));

    println!("ap fails. The removal of eu still takes effect in us; for ap it is pending:");
    fill(&nodes, "price:2").await?;
    servers[2].stop_process();
    let asked = now();
    let receipt = eu.remove("price:2").await?;
    println!("  eu was answered after {}", human(now().since(asked)));
    show.expect(receipt.is_propagated(), "the home region is done");
    println!("  gone in us after {}", human(gone(us, "price:2").await?));
    sleep(Duration::from_secs(2)).await;
    for region in eu.health().regions {
        println!("  {}: {} pending", region.name, region.health.recovery_backlog);
    }
    println!("ap is back:");
    servers[2].cont_process();
    println!("  gone in ap after {}", human(gone(ap, "price:2").await?));
    show.conclude()
}
