//! The factory decides the TTL and the tags of its value, and whether the cache stores it at all.
//!
//! ```text
//! cargo run --release --example adaptive_ttl
//! ```

use std::time::Duration;

use crinkle::{Cache, Cached, FactoryContext, ok};
use crinkle_examples::Expectations;
use tokio::time::sleep;

/// A price and the activity of its market.
#[derive(Clone, Copy, Debug)]
struct Quote {
    cents: u64,
    moves_per_second: u32,
}

/// The market: bonds do not move, shares do, and one symbol is not traded at the moment.
fn quote(symbol: &str) -> Option<Quote> {
    match symbol {
        "bond" => Some(Quote { cents: 10_000, moves_per_second: 0 }),
        "share" => Some(Quote { cents: 4_200, moves_per_second: 20 }),
        _ => None,
    }
}

async fn price(cache: &Cache, symbol: &'static str) -> Result<Cached<Option<u64>>, crinkle::Error> {
    let load = move |ctx: FactoryContext<Option<u64>>| async move {
        let Some(quote) = quote(symbol) else {
            // "Not traded" is a valid answer, but only for a short time.
            ctx.set_duration(Duration::from_millis(50));
            return ok(None);
        };
        if quote.moves_per_second > 0 {
            ctx.set_duration(Duration::from_secs(1) / quote.moves_per_second);
            ctx.add_tag("lively");
        }
        if quote.cents == 0 {
            ctx.skip_store();
        }
        ok(Some(quote.cents))
    };
    cache.get_or_set(symbol, load).tags(["quotes"]).duration(Duration::from_secs(60)).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut show = Expectations::new();
    let cache = Cache::builder("market").build()?;
    println!("Three quotes, each with a TTL that fits its market:");
    for symbol in ["bond", "share", "halted"] {
        let quote = price(&cache, symbol).await?;
        println!("  {symbol}: {:?}, tags {:?}", *quote, quote.meta().tags().collect::<Vec<_>>());
    }
    sleep(Duration::from_millis(60)).await;
    let left = |symbol: &str| cache.peek::<Option<u64>>(symbol).is_some();
    println!("After 60 ms:");
    show.expect(left("bond"), "the bond is still fresh: 60 s, from the call");
    show.expect(!left("share"), "the share has expired: 50 ms, from its factory");
    show.expect(!left("halted"), "the absence of the third has expired too");
    let share = price(&cache, "share").await?;
    show.expect(
        share.meta().tags().eq(["quotes", "lively"]),
        "the entry has the call's tag and the factory's",
    );
    cache.remove_by_tag("lively").await?;
    show.expect(!left("share") && left("bond"), "and removes only entries with this tag");
    show.conclude()
}
