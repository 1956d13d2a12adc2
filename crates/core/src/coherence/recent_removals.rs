//! This node's recent removals, for values that are stored again.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::TagHash;
use crate::protocol::ledger::Target;
use crate::tags::TagState;

/// How many removals are remembered. An older value counts as covered.
const MOST: usize = 1024;

/// The newest removals of this node, with the generation that each began.
#[derive(Debug, Default)]
pub(super) struct RecentRemovals {
    begun: VecDeque<(u64, Vec<Target>)>,
    /// The newest generation that is forgotten.
    forgotten: u64,
}

impl RecentRemovals {
    pub(super) fn begin(&mut self, born: u64, targets: &[Target]) {
        self.begun.push_back((born, targets.to_vec()));
        if self.begun.len() > MOST {
            self.forgotten = self.begun.pop_front().map_or(self.forgotten, |(born, _)| born);
        }
    }

    /// Whether a removal that began after `generation` covers an entry with these tags.
    pub(super) fn covers(&self, generation: u64, tags: &[Arc<TagState>]) -> bool {
        let hashes: Vec<_> = tags.iter().map(|tag| TagHash::of(tag.name())).collect();
        let hit = |target: &Target| match target {
            Target::Everything => true,
            Target::Tag(tag) => hashes.contains(tag),
            Target::Register(register) => hashes.iter().any(|hash| hash.register() == *register),
        };
        let young = self.begun.iter().rev().take_while(|(born, _)| *born > generation);
        self.forgotten > generation || young.flat_map(|(_, targets)| targets).any(hit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_covers_everything_older() {
        let mut own = RecentRemovals::default();
        own.begin(5, &[Target::Tag(TagHash::of("a"))]);
        assert!(!own.covers(4, &[]) && !own.covers(5, &[]));
        (0..MOST as u64).for_each(|born| own.begin(10 + born, &[]));
        assert!(own.covers(4, &[]) && !own.covers(5, &[]));
        own.begin(5000, &[Target::Everything]);
        assert!(own.covers(4999, &[]) && !own.covers(5000, &[]));
    }
}
