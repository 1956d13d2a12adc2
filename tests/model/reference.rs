//! What a cache is, said once more and as simply as possible: one map, no levels, no messages.

use std::collections::BTreeMap;

use crate::ops::{Call, NODES};

/// An answer: the value, and whether it is stale.
pub(crate) type Seen = (u32, bool);

/// One key. Times are in milliseconds.
#[derive(Clone, Debug)]
struct Entry {
    value: u32,
    tags: u8,
    created: u64,
    logical: u64,
    physical: u64,
    /// Made stale before its time.
    expired: bool,
    /// Until when a node that fell back on it leaves its factory alone, and whether it surely does: its
    /// copy in L1 remembers, which may have gone or been made again.
    throttled: [Option<(u64, bool)>; NODES],
    /// Its copy in L1 may end before it.
    short: bool,
}

/// The whole cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    pub(crate) now: u64,
    entries: BTreeMap<u8, Entry>,
    /// Until when a node that has just begun may treat what it holds as unverified: it takes what others have
    /// said before for a loss, and looks at L2 instead of leaving a factory alone.
    restless_until: u64,
}

impl Entry {
    fn is_fresh(&self, now: u64) -> bool {
        !self.expired && now < self.logical
    }

    fn forget_throttle(&mut self) {
        self.throttled.iter_mut().flatten().for_each(|(_, surely)| *surely = false);
    }
}

impl Reference {
    /// Whether something ends so close to now that rounding decides.
    pub(crate) fn is_close(&self) -> bool {
        let ends = self.entries.values().flat_map(|e| {
            let throttled = e.throttled.iter().flatten().map(|(until, _)| *until);
            let ages = [60_000, 120_000].map(|age| e.created + age);
            throttled.chain([e.logical, e.physical]).chain(ages)
        });
        ends.into_iter().any(|end| end.abs_diff(self.now) < 100)
    }

    /// What there is, fresh or stale.
    fn there(&mut self, key: u8) -> Option<&mut Entry> {
        self.entries.get_mut(&key).filter(|e| self.now < e.physical)
    }

    pub(crate) fn get(&mut self, key: u8, stale: bool) -> Option<Seen> {
        let now = self.now;
        let entry = self.there(key)?;
        let fresh = entry.is_fresh(now);
        (fresh || stale).then_some((entry.value, !fresh))
    }

    pub(crate) fn set(&mut self, key: u8, value: u32, call: &Call) {
        let kept = call.fail_safe.map_or(0, |(most, _)| most);
        let entry = Entry {
            value,
            tags: call.tags,
            created: self.now,
            logical: self.now + call.duration,
            physical: self.now + call.duration.max(kept),
            expired: false,
            throttled: [None; NODES],
            short: call.l1_duration.is_some(),
        };
        self.entries.insert(key, entry);
    }

    /// `value` is what the factory brings, if it does not fail; `loaded` whether it was run. Answers
    /// what the caller gets, and whether the factory had to be run, if that is certain.
    pub(crate) fn load(
        &mut self,
        (node, key): (usize, u8),
        value: Option<u32>,
        call: &Call,
        loaded: bool,
    ) -> (Option<Seen>, Option<bool>) {
        if let Some(seen) = self.get(key, false) {
            return (Some(seen), Some(false));
        }
        let now = self.now;
        let may = |e: &&mut Entry| call.fail_safe.is_some_and(|(most, _)| now <= e.created + most);
        let fallback = self.there(key).filter(may).map(|e| (e.value, e.throttled[node]));
        let throttled = fallback.and_then(|(_, until)| until).filter(|(until, _)| now < *until);
        let calm = !call.skip_l1 && now >= self.restless_until;
        let surely = calm && throttled.is_some_and(|(_, surely)| surely);
        let must = match throttled {
            None => Some(true),
            Some(_) => surely.then_some(false),
        };
        if !must.unwrap_or(loaded) {
            return (fallback.map(|(value, _)| (value, true)), must);
        }
        if let Some(value) = value {
            self.set(key, value, call);
            return (Some((value, false)), must);
        }
        if let (Some(_), Some((_, throttle))) = (fallback, call.fail_safe) {
            let entry = self.there(key).expect("there is a fallback");
            entry.throttled[node] = Some((now + throttle, !entry.short && !call.skip_l1));
        }
        (fallback.map(|(value, _)| (value, true)), must)
    }

    pub(crate) fn remove(&mut self, key: u8) {
        self.entries.remove(&key);
    }

    pub(crate) fn expire(&mut self, key: u8) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.expired = true;
            entry.forget_throttle();
        }
    }

    /// Everything that carries one of these tags.
    pub(crate) fn invalidate(&mut self, tags: Option<u8>, hard: bool) {
        let meant = |e: &Entry| tags.is_none_or(|tags| e.tags & tags != 0);
        if hard {
            self.entries.retain(|_, e| !meant(e));
        } else {
            self.entries.values_mut().filter(|e| meant(e)).for_each(|e| e.expired = true);
        }
    }

    /// A node has started again.
    pub(crate) fn restart(&mut self) {
        self.entries.values_mut().for_each(Entry::forget_throttle);
        self.restless_until = self.now + 15_000;
    }

    /// A call left out L1: what copies remembered may be gone.
    pub(crate) fn forget(&mut self, keys: impl IntoIterator<Item = u8>) {
        for key in keys {
            self.entries.get_mut(&key).into_iter().for_each(Entry::forget_throttle);
        }
    }
}
