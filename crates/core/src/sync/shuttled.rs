//! The same locks and atomics: at each of them the scheduler may switch to another thread.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

pub(crate) use shuttle::sync::MutexGuard;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

use super::Step;

thread_local! {
    static MISORDERED: Cell<Option<Step>> = const { Cell::new(None) };
}

/// Puts a step out of order, for the tests of this thread.
pub(crate) fn misorder(step: Option<Step>) {
    MISORDERED.set(step);
}

pub(crate) fn is_misordered(step: Step) -> bool {
    MISORDERED.get() == Some(step)
}

/// A lock with the interface of `parking_lot`.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no test panics under a lock")
    }
}

/// A map with the interface of `dashmap`, and one shard.
#[derive(Debug)]
pub(crate) struct DashMap<K, V, S = ()>(Mutex<HashMap<K, V>>, PhantomData<fn() -> S>);

/// A value and the lock of its shard.
#[derive(Debug)]
pub(crate) struct Ref<'a, K, V>(MutexGuard<'a, HashMap<K, V>>, K);

/// An entry, with or without a value, and the lock of its shard.
#[derive(Debug)]
pub(crate) enum Entry<'a, K, V> {
    Occupied(Ref<'a, K, V>),
    Vacant(Ref<'a, K, V>),
}

impl<K, V, S> Default for DashMap<K, V, S> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()), PhantomData)
    }
}

impl<K: Clone + Eq + Hash, V> DashMap<K, V> {
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl<K: Clone + Eq + Hash, V, S> DashMap<K, V, S> {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.lock().contains_key(key)
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
    {
        let map = self.0.lock();
        let (key, _) = map.get_key_value(key)?;
        let key = key.clone();
        Some(Ref(map, key))
    }

    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
    {
        self.get(key)
    }

    pub(crate) fn entry(&self, key: K) -> Entry<'_, K, V> {
        let map = self.0.lock();
        let there = map.contains_key(&key);
        let place = Ref(map, key);
        if there { Entry::Occupied(place) } else { Entry::Vacant(place) }
    }

    pub(crate) fn remove_if_mut<Q: Eq + Hash + ?Sized>(
        &self,
        key: &Q,
        remove: impl FnOnce(&K, &mut V) -> bool,
    ) where
        K: Borrow<Q>,
    {
        if let Some(mut place) = self.get(key) {
            let key = place.1.clone();
            if remove(&key, &mut place) {
                place.remove();
            }
        }
    }

    pub(crate) fn retain(&self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.lock().retain(keep);
    }
}

impl<'a, K: Clone + Eq + Hash, V: Default> Entry<'a, K, V> {
    pub(crate) fn or_default(self) -> Ref<'a, K, V> {
        let (Self::Occupied(mut place) | Self::Vacant(mut place)) = self;
        place.0.entry(place.1.clone()).or_default();
        place
    }
}

impl<K: Eq + Hash, V> Ref<'_, K, V> {
    pub(crate) fn get(&self) -> &V {
        self
    }

    pub(crate) fn get_mut(&mut self) -> &mut V {
        self
    }

    pub(crate) fn remove(mut self) {
        self.0.remove(&self.1);
    }
}

impl<K: Eq + Hash, V> Deref for Ref<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.0.get(&self.1).expect("it is there while its shard is locked")
    }
}

impl<K: Eq + Hash, V> DerefMut for Ref<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.0.get_mut(&self.1).expect("it is there while its shard is locked")
    }
}
