//! What this node has written of late, and what to do where a failover took it back.
//!
//! A replica that is promoted may lack the last writes that the old primary acknowledged: the record
//! from before is back, and nobody is told. So whoever wrote lately compares once another primary
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

/// The commits of the last while, the newest last.
#[derive(Clone, Debug)]
pub struct Commits {
    ring: VecDeque<(Arc<str>, Commit, u64)>,
    /// The newest of each key in the ring, and how many of the key there are.
    newest: HashMap<Arc<str>, (Commit, usize)>,
    cap: usize,
}

impl Commits {
    /// Holds `cap` at most; of more, the newest.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { ring: VecDeque::new(), newest: HashMap::new(), cap }
    }

    /// L2 has acknowledged a write, at `at` of a clock that only rises.
    pub fn note(&mut self, key: &str, commit: Commit, at: u64) {
        if self.ring.len() >= self.cap {
            self.pop();
        }
        let key = Arc::<str>::from(key);
        let (newest, count) = self.newest.entry(Arc::clone(&key)).or_insert((commit, 0));
        *newest = commit;
        *count += 1;
        self.ring.push_back((key, commit, at));
    }

    /// Forgets what was noted before `at`.
    pub fn forget(&mut self, at: u64) {
        while self.ring.front().is_some_and(|(_, _, noted)| *noted < at) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((key, ..)) = self.ring.pop_front() else { return };
        if let Entry::Occupied(mut newest) = self.newest.entry(key) {
            newest.get_mut().1 -= 1;
            if newest.get().1 == 0 {
                newest.remove();
            }
        }
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
        let mut commits = Commits::new(3);
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
    }
}
