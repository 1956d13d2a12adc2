//! The factory decides how long its value lives, which tags it carries, and whether it is kept at all.
//!
//! ```text
//! cargo run --release --example adaptive_ttl
//! ```

use std::time::Duration;

use crinkle::{Cache, Cached, FactoryContext, ok};
use crinkle_examples::Expectations;
use tokio::time::sleep;

/// A price and how lively its market is.
#[derive(Clone, Copy, Debug)]
struct Quote {
    cents: u64,
    moves_per_second: u32,
}

/// The market: bonds stand still, shares move, and one is not traded at the moment.
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
            // "Not traded" is an answer like any other, but only for a moment.
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
    println!("Three quotes, each with the life its market asks for:");
    for symbol in ["bond", "share", "halted"] {
        let quote = price(&cache, symbol).await?;
        println!("  {symbol}: {:?}, tags {:?}", *quote, quote.tags().collect::<Vec<_>>());
    }
    sleep(Duration::from_millis(60)).await;
    let left = |symbol: &str| cache.peek::<Option<u64>>(symbol).is_some();
    println!("After 60 ms:");
    show.expect(left("bond"), "the bond is still fresh: 60 s, as the call said");
    show.expect(!left("share"), "the share is not: 50 ms, as its factory said");
    show.expect(!left("halted"), "nor is the absence of the third");
    let share = price(&cache, "share").await?;
    show.expect(share.tags().eq(["quotes", "lively"]), "the factory's tag is beside the call's");
    cache.remove_by_tag("lively").await?;
    show.expect(!left("share") && left("bond"), "and removes what carries it, nothing else");
    show.conclude()
}
