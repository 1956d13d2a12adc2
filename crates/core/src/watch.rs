//! A value whose changes tasks can wait for.
//!
//! Like `tokio::sync::watch`, except that waiting tasks wake in the order in which they began to
//! wait. A `tokio` watch picks at random, and then a simulated run would not follow from its seed.

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Watch<T> {
    /// The value, and how often it has changed.
    value: Mutex<(u64, T)>,
    moved: Notify,
}

impl<T: Clone> Watch<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new((0, value)), moved: Notify::new() }
    }

    /// The current value.
    pub(crate) fn read(&self) -> T {
        self.value.lock().1.clone()
    }

    /// Changes the value.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        {
            let mut value = self.value.lock();
            value.0 += 1;
            change(&mut value.1);
        }
        self.moved.notify_waiters();
    }

    /// Replaces the value.
    pub(crate) fn write(&self, value: T) {
        self.modify(|old| *old = value);
    }

    /// A reader that can wait for a change.
    pub(crate) fn reader(&self) -> Reader<'_, T> {
        Reader { watch: self, seen: 0 }
    }
}

/// Reads the value, and knows how often it had changed at the last read.
#[derive(Debug)]
pub(crate) struct Reader<'a, T> {
    watch: &'a Watch<T>,
    seen: u64,
}

impl<T: Clone> Reader<'_, T> {
    /// The current value.
    pub(crate) fn read(&mut self) -> T {
        let value = self.watch.value.lock();
        self.seen = value.0;
        value.1.clone()
    }

    /// Waits until the value has changed since it was last read. Dropping the future loses nothing.
    pub(crate) async fn changed(&self) {
        loop {
            let moved = self.watch.moved.notified();
            if self.watch.value.lock().0 != self.seen {
                return;
            }
            moved.await;
        }
    }

    /// Waits until the condition holds for the value. Dropping the future loses nothing.
    pub(crate) async fn wait_for(&mut self, holds: impl Fn(&T) -> bool + Send) {
        while !holds(&self.read()) {
            self.changed().await;
        }
    }
}
