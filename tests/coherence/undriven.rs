//! A current-thread runtime that nobody drives any more, and calls from another one. In real time.

use std::time::Duration;

use crinkle_core::{Cache, Token};
use crinkle_testkit::chaos::{Fate, Gate, L2Handle, L2Op};
use crinkle_tests::redis::{comes_true, in_time};
use crinkle_tests::{current_thread, gated, multi_thread};
use futures_util::FutureExt;
use tokio::time::sleep;

use super::runtimes::Shared;

/// A node whose poll is asking while its runtime is left.
async fn left_while_it_asks(shared: &Shared) -> Cache {
    let (cache, l2) = shared.ready().await;
    let gate = Gate::new();
    l2.next(L2Op::Sync, Fate::Hold(gate.clone()));
    in_time(gate.reached()).await;
    cache
}

/// Another node has written `there` and removed a tag.
async fn token(shared: &Shared) -> Token {
    let (peer, _) = shared.ready().await;
    let _ = in_time(peer.set("there", 1)).await.expect("no error");
    let removed = in_time(peer.remove_by_tag("t")).await.expect("no error");
    removed.token().expect("a number")
}

fn not_ready(shared: &Shared) -> (Cache, L2Handle) {
    shared.node(Duration::from_secs(1))
}

#[test]
fn closing_ends_though_the_poll_is_never_driven_again() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let cache = first.block_on(left_while_it_asks(&shared));
    second.block_on(in_time(cache.close())).unwrap();
}

/// The caller gave up in the middle of the first attempt.
#[test]
fn closing_once_more_ends_though_the_poll_is_never_driven_again() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let cache = first.block_on(async {
        let cache = left_while_it_asks(&shared).await;
        assert!(Box::pin(cache.close()).now_or_never().is_none());
        cache
    });
    second.block_on(in_time(cache.close())).unwrap();
}

/// A thread of its runtime hangs, which nobody can tell from one that works.
#[test]
fn closing_ends_though_the_poll_hangs_with_its_thread() {
    let (shared, first, second) = (Shared::new(), multi_thread(), multi_thread());
    let cache = first.block_on(left_while_it_asks(&shared));
    let (free, hangs) = std::sync::mpsc::channel::<()>();
    drop(first.spawn(async move { hangs.recv() }));
    let _ = second.block_on(in_time(cache.close()));
    drop(free);
}

/// `moved`: the tasks have moved on before.
#[test]
fn closing_from_elsewhere_tells_of_no_loads_that_there_are_not() {
    for moved in [false, true] {
        let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
        let (cache, _) = first.block_on(shared.ready());
        second.block_on(async {
            if moved {
                let _ = in_time(cache.set("key", 1)).await.unwrap();
            }
            in_time(cache.close()).await.unwrap();
        });
    }
}

/// A load that runs nowhere any more is none that still runs.
#[test]
fn closing_from_elsewhere_does_not_wait_for_a_load_that_was_left() {
    for with_l2 in [false, true] {
        let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
        let gate = Gate::new();
        let cache = first.block_on(async {
            let cache = if with_l2 {
                shared.ready().await.0
            } else {
                Cache::builder("a").build().expect("sound settings")
            };
            let leader = cache.clone();
            let load = gated::<_, i32>(&gate, 1);
            drop(tokio::spawn(async move { leader.get_or_set("key", load).await }));
            in_time(gate.reached()).await;
            cache
        });
        second.block_on(in_time(cache.close())).unwrap();
    }
}

/// What goes on in the background when its runtime is left is queued, and leaves from elsewhere.
#[test]
fn a_removal_in_the_background_that_was_left_reaches_l2() {
    for called_there in [true, false] {
        let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
        let gate = Gate::new();
        let (cache, l2) = first.block_on(async {
            let (cache, l2) = shared.ready().await;
            let _ = in_time(cache.set("key", 1)).await.unwrap();
            (cache, l2)
        });
        l2.next(L2Op::Remove, Fate::Hold(gate.clone()));
        let remove = cache.remove("key").background_l2(true);
        let _ = if called_there { &first } else { &second }.block_on(in_time(remove)).unwrap();
        second.block_on(async {
            let (peer, _) = shared.ready().await;
            let _ = in_time(cache.set("other", 1)).await.unwrap();
            comes_true("L2 has heard of it", async || {
                peer.get::<i32>("key").await.unwrap().is_none()
            })
            .await;
            comes_true("nothing waits", async || cache.health().recovery_backlog == 0).await;
            in_time(cache.close()).await.unwrap();
        });
    }
}

/// A cache for a region that was built on it, and what is relayed there.
#[test]
fn other_regions_hear_of_what_is_removed_from_elsewhere() {
    let (home, there) = (Shared::new(), Shared::new());
    let (first, second) = (current_thread(), multi_thread());
    let cache = first.block_on(async {
        let cache = home.with_region(&there);
        in_time(cache.ready()).await.unwrap();
        cache
    });
    second.block_on(async {
        let (peer, _) = there.ready().await;
        let _ = in_time(peer.set("key", 1)).await.unwrap();
        let _ = in_time(peer.set("tagged", 1).tags(["t"])).await.unwrap();
        let _ = in_time(cache.remove("key").and_tags(["t"])).await.unwrap();
        for key in ["key", "tagged"] {
            comes_true("it is gone there", async || peer.get::<i32>(key).await.unwrap().is_none())
                .await;
        }
        in_time(cache.close()).await.unwrap();
    });
}

#[test]
fn ready_from_elsewhere_ends() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let (cache, _) = first.block_on(async { not_ready(&shared) });
    second.block_on(in_time(cache.ready())).unwrap();
}

/// Driven for as long as it takes to wait.
#[test]
fn ready_ends_though_its_runtime_is_left_meanwhile() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let gate = Gate::new();
    let (cache, _) = first.block_on(async {
        let (cache, l2) = not_ready(&shared);
        l2.next(L2Op::Sync, Fate::Hold(gate.clone()));
        in_time(gate.reached()).await;
        (cache, l2)
    });
    let ready = second.spawn(async move { cache.ready().await });
    first.block_on(async { sleep(Duration::from_millis(120)).await });
    gate.open();
    second.block_on(in_time(ready)).unwrap().unwrap();
}

/// To find out that nobody drives it takes longer than L2 may take, which does not count.
fn takes_long_to_find_out(shared: &Shared) -> Cache {
    shared.polling(Duration::from_secs(1), Duration::from_secs(1)).0
}

#[test]
fn contains_from_elsewhere_asks_l2() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let _ = second.block_on(token(&shared));
    let cache = first.block_on(async { takes_long_to_find_out(&shared) });
    assert!(second.block_on(in_time(cache.contains("there"))).unwrap());
}

#[test]
fn reads_from_elsewhere_ask_l2() {
    for many in [false, true] {
        let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
        let _ = second.block_on(token(&shared));
        let cache = first.block_on(async { takes_long_to_find_out(&shared) });
        let found = if many {
            second.block_on(in_time(cache.get_many::<i32>(["there"]))).unwrap().remove(0)
        } else {
            second.block_on(in_time(cache.get::<i32>("there").require_l2(true))).unwrap()
        };
        assert_eq!(found.as_deref(), Some(&1), "many: {many}");
    }
}

#[test]
fn waiting_for_a_token_from_elsewhere_sees_the_removal() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let token = second.block_on(token(&shared));
    let (cache, _) = first.block_on(async { not_ready(&shared) });
    second.block_on(in_time(cache.wait_for(token))).unwrap();
}

#[test]
fn a_reservation_from_elsewhere_is_made() {
    let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
    let _ = second.block_on(token(&shared));
    let (cache, _) = first.block_on(async { not_ready(&shared) });
    let reservation = second.block_on(in_time(cache.reserve("there"))).unwrap();
    let set = cache.set("there", 2).reserved(reservation);
    assert!(second.block_on(in_time(set)).unwrap().is_propagated());
}
