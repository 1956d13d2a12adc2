//! A value that tasks wait to see change.
//!
//! As `tokio::sync::watch`, except that those who wait wake in the order in which they came: a watch
//! draws lots, and then a simulated run would not follow from its seed.

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Watch<T> {
    /// What it says, and how often that has changed.
    value: Mutex<(u64, T)>,
    moved: Notify,
}

impl<T: Clone> Watch<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new((0, value)), moved: Notify::new() }
    }

    /// What it says now.
    pub(crate) fn read(&self) -> T {
        self.value.lock().1.clone()
    }

    /// Changes it.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        {
            let mut value = self.value.lock();
            value.0 += 1;
            change(&mut value.1);
        }
        self.moved.notify_waiters();
    }

    /// Says something else.
    pub(crate) fn write(&self, value: T) {
        self.modify(|old| *old = value);
    }

    /// Somebody who reads it and waits for it to change.
    pub(crate) fn reader(&self) -> Reader<'_, T> {
        Reader { watch: self, seen: 0 }
    }
}

/// Knows how often the value had changed when it was read last.
#[derive(Debug)]
pub(crate) struct Reader<'a, T> {
    watch: &'a Watch<T>,
    seen: u64,
}

impl<T: Clone> Reader<'_, T> {
    /// What it says now.
    pub(crate) fn read(&mut self) -> T {
        let value = self.watch.value.lock();
        self.seen = value.0;
        value.1.clone()
    }

    /// Waits until it has changed since it was read. Nothing is lost when it is dropped.
    pub(crate) async fn changed(&self) {
        loop {
            let moved = self.watch.moved.notified();
            if self.watch.value.lock().0 != self.seen {
                return;
            }
            moved.await;
        }
    }

    /// Waits until something holds of it. Nothing is lost when it is dropped.
    pub(crate) async fn wait_for(&mut self, holds: impl Fn(&T) -> bool + Send) {
        while !holds(&self.read()) {
            self.changed().await;
        }
    }
}
