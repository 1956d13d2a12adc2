//! This node's recent writes, and the invalidations for those that a failover lost.
//!
//! A promoted replica may lack the last writes that the old primary acknowledged. The previous
//! record is then back, and no message announces it. So a node compares its recent writes once
//! another primary answers. It invalidates each key whose record does not carry the version that
//! this node left. That hides the old record, and costs a load if another node wrote a newer one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Version;
use super::ledger::Strength;
use super::record::Head;

/// The result of a write in L2: a record with a version, or no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The version of the record since the write.
    pub version: Version,
    /// Whether the write made the previous record stale or removed it.
    pub strength: Strength,
}

/// Decides how to invalidate a key, from one node's commits and L2's record of the key.
///
/// The result is as hard as the hardest commit after the record's version, and `None` if the
/// record has the newest. Without a record all commits count: an old record may have been there
/// meanwhile, and a node may have read it.
#[must_use]
pub fn reassert(commits: &[Commit], head: Option<Head>) -> Option<Strength> {
    let found = head.map(Head::version);
    let undone = commits.iter().rev().take_while(|commit| Some(commit.version) != found);
    let undone = undone.map(|commit| commit.strength).max();
    undone.filter(|_| !sabotaged!(CommitsForgotten))
}

/// The commits of the recent past, newest last. Holds keys, never values.
#[derive(Clone, Debug)]
pub struct Commits {
    ring: VecDeque<(Arc<str>, Commit, u64)>,
    /// The newest commit of each key in the ring, and how many commits of the key the ring holds.
    newest: HashMap<Arc<str>, (Commit, usize)>,
    cap: usize,
    cap_bytes: usize,
    bytes: usize,
}

/// The bytes of a commit in the ring.
const OF_COMMIT: usize = size_of::<(Arc<str>, Commit, u64)>();

/// The bytes of a key without its commits: the key itself, and its entry in the map.
const fn of_key(key: &str) -> usize {
    key.len() + 2 * size_of::<usize>() + size_of::<(Arc<str>, (Commit, usize))>()
}

impl Commits {
    /// Holds at most `cap` commits and `cap_bytes` bytes, and drops the oldest beyond that. The
    /// unused capacity of its tables is not counted.
    #[must_use]
    pub fn new(cap: usize, cap_bytes: usize) -> Self {
        Self { ring: VecDeque::new(), newest: HashMap::new(), cap, cap_bytes, bytes: 0 }
    }

    /// Records a write that L2 acknowledged at `at`, on a monotonic clock. Returns how many older
    /// commits it dropped to make room.
    pub fn note(&mut self, key: &str, commit: Commit, at: u64) -> u64 {
        let known = self.newest.get_key_value(key).map(|(key, _)| Arc::clone(key));
        let key = known.unwrap_or_else(|| {
            self.bytes += of_key(key);
            Arc::from(key)
        });
        let (newest, count) = self.newest.entry(Arc::clone(&key)).or_insert((commit, 0));
        *newest = commit;
        *count += 1;
        self.ring.push_back((key, commit, at));
        self.bytes += OF_COMMIT;
        let mut forgotten = 0;
        while self.ring.len() > self.cap || self.bytes > self.cap_bytes {
            forgotten += u64::from(self.pop().is_some());
        }
        forgotten
    }

    /// Removes and returns the commits recorded before `at`.
    pub fn forget(&mut self, at: u64) -> Vec<(Arc<str>, Commit)> {
        let mut forgotten = Vec::new();
        while self.ring.front().is_some_and(|(_, _, noted)| *noted < at) {
            forgotten.extend(self.pop());
        }
        forgotten
    }

    fn pop(&mut self) -> Option<(Arc<str>, Commit)> {
        let (key, commit, _) = self.ring.pop_front()?;
        self.bytes -= OF_COMMIT;
        if let Entry::Occupied(mut newest) = self.newest.entry(Arc::clone(&key)) {
            newest.get_mut().1 -= 1;
            if newest.get().1 == 0 {
                newest.remove();
                self.bytes -= of_key(&key);
            }
        }
        Some((key, commit))
    }

    /// The bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The commits of each key, oldest first.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<Arc<str>, Vec<Commit>> {
        let mut by_key = BTreeMap::<Arc<str>, Vec<Commit>>::new();
        for (key, commit, _) in &self.ring {
            by_key.entry(Arc::clone(key)).or_default().push(*commit);
        }
        by_key
    }

    /// Whether it holds no commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The newest commit of a key that it still holds.
    #[must_use]
    pub fn newest(&self, key: &str) -> Option<Commit> {
        self.newest.get(key).map(|(commit, _)| *commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_commit_of_a_key_is_known_until_the_last_is_forgotten() {
        let commit = |version| Commit { version: Version(version), strength: Strength::Hard };
        let mut commits = Commits::new(3, usize::MAX);
        for (at, (key, version)) in (1..).zip([("a", 1), ("b", 2), ("a", 3), ("b", 4)]) {
            commits.note(key, commit(version), at);
        }
        let newest = |commits: &Commits| ["a", "b"].map(|key| commits.newest(key));
        assert_eq!(newest(&commits), [Some(commit(3)), Some(commit(4))]);
        assert_eq!(commits.by_key()["b"], [commit(2), commit(4)]);
        commits.forget(4);
        assert_eq!(newest(&commits), [None, Some(commit(4))]);
        commits.forget(5);
        assert_eq!((newest(&commits), commits.is_empty()), ([None, None], true));
        assert_eq!(commits.bytes(), 0);
    }

    /// A limit on the number of keys bounds no memory, because a key may have 32 KiB.
    #[test]
    fn long_keys_are_bounded_in_bytes_and_what_falls_out_is_counted() {
        const MOST: usize = 1 << 20;
        let mut commits = Commits::new(65_536, MOST);
        let commit = Commit { version: Version(1), strength: Strength::Hard };
        let key = |n: u64| format!("{n:01024}");
        let forgotten: u64 = (0..5000).map(|n| commits.note(&key(n), commit, n)).sum();
        assert!(commits.bytes() <= MOST && commits.bytes() > MOST - 2048, "{}", commits.bytes());
        assert_eq!(forgotten + commits.ring.len() as u64, 5000);
        assert_eq!(commits.newest(&key(4999)), Some(commit), "the newest are kept");
        // A key that is written repeatedly is stored once.
        let mut commits = Commits::new(65_536, MOST);
        assert_eq!((0..5000).map(|n| commits.note(&key(1), commit, n)).sum::<u64>(), 0);
        assert_eq!(commits.note(&"k".repeat(MOST), commit, 5000), 5001, "no room for this one");
        assert_eq!((commits.bytes(), commits.is_empty()), (0, true));
    }
}
