//! What this node has written of late, and what to do where a failover took it back.
//!
//! A replica that is promoted may lack the last writes that the old primary acknowledged: the record
//! from before is back, and nobody is told. So whoever wrote lately compares once another primary
//! answers. What is not there under the version that this node left is invalidated: that hides what came
//! back, and costs a load if it was another node's newer write.

use std::collections::{BTreeMap, VecDeque};

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
    ring: VecDeque<(Box<str>, Commit, u64)>,
    cap: usize,
}

impl Commits {
    /// Holds `cap` at most; of more, the newest.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { ring: VecDeque::new(), cap }
    }

    /// L2 has acknowledged a write, at `at` of a clock that only rises.
    pub fn note(&mut self, key: &str, commit: Commit, at: u64) {
        if self.ring.len() >= self.cap {
            self.ring.pop_front();
        }
        self.ring.push_back((key.into(), commit, at));
    }

    /// Forgets what was noted before `at`.
    pub fn forget(&mut self, at: u64) {
        while self.ring.front().is_some_and(|(_, _, noted)| *noted < at) {
            self.ring.pop_front();
        }
    }

    /// The commits of each key, in their order.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<Box<str>, Vec<Commit>> {
        let mut by_key = BTreeMap::<Box<str>, Vec<Commit>>::new();
        for (key, commit, _) in &self.ring {
            by_key.entry(key.clone()).or_default().push(*commit);
        }
        by_key
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The newest commit of a key.
    #[must_use]
    pub fn newest(&self, key: &str) -> Option<Commit> {
        let mut newest_first = self.ring.iter().rev();
        newest_first.find(|(of, _, _)| **of == *key).map(|(_, commit, _)| *commit)
    }
}
