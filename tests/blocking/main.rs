//! The blocking facade on real runtimes and threads. A watchdog ends endless waits.

mod contexts;
mod loads;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crinkle_core::blocking::{self, runtime};
use crinkle_core::l2::MemoryL2;
use crinkle_core::{Cache, Error};
use tokio::runtime::Handle;

/// Runs on a thread outside any runtime.
///
/// # Panics
///
/// If it panics, or takes half a minute.
fn on_a_thread<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = channel();
    let thread = thread::spawn(move || {
        let _ = done.send(run());
    });
    let result = wait.recv_timeout(Duration::from_secs(30));
    assert!(result.is_ok() || thread.is_finished(), "it waits for ever");
    result.unwrap_or_else(|_| panic!("it panicked: {:?}", thread.join()))
}

/// Yields to other threads until a condition holds; the watchdog limits the wait.
fn yield_until(holds: impl Fn() -> bool) {
    while !holds() {
        thread::yield_now();
    }
}

fn alone() -> blocking::Cache {
    Cache::builder("shop").build().expect("sound settings").blocking()
}

fn with_l2() -> blocking::Cache {
    built_in(&runtime().expect("a thread")).blocking()
}

fn built_in(runtime: &Handle) -> Cache {
    let _context = runtime.enter();
    Cache::builder("shop").l2(MemoryL2::new()).build().expect("sound settings")
}

/// Makes every call once; with an L2, each has to wait.
fn every_call(cache: &blocking::Cache) -> Result<(), Error> {
    let value = || crinkle_core::ok(1);
    assert_eq!(*cache.get_or_set("key", move |_| value())?, 1);
    assert_eq!(cache.get::<i32>("key")?.as_deref(), Some(&1));
    assert_eq!(*cache.get_or_set("key", |_| Err::<i32, _>("no load"))?, 1);
    let _ = cache.remove("key")?;
    assert_eq!(*cache.get_or("key", 2)?, 2);
    let _ = cache.set("key", 3)?;
    assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&3));
    let _ = cache.expire("key")?;
    assert!(cache.get::<i32>("key")?.is_none());
    let tagged = || {
        let load = blocking::factory(move |_| value());
        cache.wait(cache.inner().get_or_set("key", load).tags(["a", "b"]))
    };
    let gone = || cache.get::<i32>("key").map(|found| found.is_none());
    tagged()?;
    assert!(cache.remove_by_tag("a")?.is_propagated() && gone()?);
    tagged()?;
    assert!(cache.remove_by_tags(["b", "c"])?.is_propagated() && gone()?);
    tagged()?;
    assert!(cache.expire_by_tag("b")?.is_propagated() && gone()?);
    tagged()?;
    assert!(cache.expire_all()?.is_propagated() && gone()?);
    tagged()?;
    assert!(cache.remove_all()?.is_propagated() && gone()?);
    cache.close()
}
