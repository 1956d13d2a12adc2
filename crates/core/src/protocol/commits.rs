//! What this node has written of late, and what to do where a failover took it back.
//!
//! A replica that is promoted may lack the last writes that the old primary acknowledged: the record
//! from before is back, and nobody is told. So whoever wrote recent_writes compares once another primary
//! answers. What is not there under the version that this node left is invalidated: that hides what came
//! back, and costs a load if it was another node's newer write.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Version;
use super::ledger::Strength;
use super::record::Head;

/// What a write left in L2: under its version, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The version that the record carries since.
    pub version: Version,
    /// How hard what was there before is gone.
    pub strength: Strength,
}

/// What L2's record of a key asks for, after these commits of one node: an invalidation as hard as the
/// hardest of those that came after what is there; nothing if that is the newest. Where nothing is,
/// something may have been meanwhile, and been read.
#[must_use]
pub fn reassert(commits: &[Commit], head: Option<Head>) -> Option<Strength> {
    let found = head.map(Head::version);
    let undone = commits.iter().rev().take_while(|commit| Some(commit.version) != found);
    let undone = undone.map(|commit| commit.strength).max();
    undone.filter(|_| !sabotaged!(CommitsForgotten))
}

/// The commits of the last while, the newest last. Of a write it holds the key, never the value.
#[derive(Clone, Debug)]
pub struct Commits {
    ring: VecDeque<(Arc<str>, Commit, u64)>,
    /// The newest of each key in the ring, and how many of the key there are.
    newest: HashMap<Arc<str>, (Commit, usize)>,
    cap: usize,
    cap_bytes: usize,
    bytes: usize,
}

/// What a commit takes in the ring.
const OF_COMMIT: usize = size_of::<(Arc<str>, Commit, u64)>();

/// What a key takes, with its commits aside: itself once, and its place among the newest.
const fn of_key(key: &str) -> usize {
    key.len() + 2 * size_of::<usize>() + size_of::<(Arc<str>, (Commit, usize))>()
}

impl Commits {
    /// Holds `cap` commits and `cap_bytes` bytes at most; of more, the newest. The spare room of its
    /// tables comes on top.
    #[must_use]
    pub fn new(cap: usize, cap_bytes: usize) -> Self {
        Self { ring: VecDeque::new(), newest: HashMap::new(), cap, cap_bytes, bytes: 0 }
    }

    /// L2 has acknowledged a write, at `at` of a clock that only rises. Answers how many older commits had to
    /// be forgotten for it.
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

    /// Forgets what was noted before `at`, and returns it.
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

    /// How many bytes are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The commits of each key, in their order.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<Arc<str>, Vec<Commit>> {
        let mut by_key = BTreeMap::<Arc<str>, Vec<Commit>>::new();
        for (key, commit, _) in &self.ring {
            by_key.entry(Arc::clone(key)).or_default().push(*commit);
        }
        by_key
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The newest commit of a key that is remembered.
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

    /// Keys may be as long as 32 KiB, so a number of them is no bound.
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
        // A key that is written again and again is held once.
        let mut commits = Commits::new(65_536, MOST);
        assert_eq!((0..5000).map(|n| commits.note(&key(1), commit, n)).sum::<u64>(), 0);
        assert_eq!(commits.note(&"k".repeat(MOST), commit, 5000), 5001, "no room for this one");
        assert_eq!((commits.bytes(), commits.is_empty()), (0, true));
    }
}
