//! Tests of the system clock.

use std::time::Duration;

use crinkle_core::{Clock, SystemClock};

/// The moment that a hit reads is never ahead, never goes back, and does not stand still.
#[test]
fn the_recent_moment_follows_the_current_one() {
    let begin = SystemClock.now();
    let mut last = SystemClock.recent();
    while last <= begin {
        let recent = SystemClock.recent();
        let now = SystemClock.now();
        assert!(last <= recent && recent <= now);
        assert!(now.since(begin) < Duration::from_secs(10), "the recent moment stands still");
        last = recent;
    }
}
