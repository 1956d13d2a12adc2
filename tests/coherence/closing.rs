//! How long `close` takes, at worst.

use std::sync::Arc;
use std::time::Duration;

use crinkle_testkit::chaos::{self, Gate};
use crinkle_tests::{World, gated, load, options, pass, until};
use tokio::time::Instant;

/// Two timeouts of L2 for the poll and a question of its own, 5 s for loads, and a timeout for another question: what
/// the page on health checks says, wherever the poll is, and however many regions there are.
#[tokio::test(start_paused = true)]
async fn closing_takes_what_its_page_says_while_nothing_answers() {
    let mut worst = Duration::ZERO;
    for phase in (0..1000).step_by(50) {
        let (home, other) = (World::new().await, World::new().await);
        let (store, there) = chaos::l2(Arc::new(other.store.clone()));
        let bus = other.bus.clone();
        let one = home.node_with(|builder| builder.region("other", store, bus)).await;
        let region = || one.cache.health().regions[0].health.subscribed;
        until("the other region is known", region).await;
        let gate = Gate::new();
        drop(load(&one.cache, "hangs", &[], options(), gated(&gate, 1)));
        gate.reached().await;
        pass(Duration::from_millis(1500)).await;
        one.l2.hang();
        there.hang();
        pass(Duration::from_millis(phase)).await;
        let _ = one.cache.remove("key").background_l2(true).and_tags(["t"]).await.unwrap();
        let began = Instant::now();
        let closed = one.cache.close().await.unwrap_err().to_string();
        assert!(closed.contains("1 invalidations of keys and 1 removals by tag"), "{closed}");
        assert!(closed.contains("shop@other"), "{closed}");
        worst = worst.max(began.elapsed());
    }
    assert!(worst <= Duration::from_secs(8), "{worst:?}");
}
