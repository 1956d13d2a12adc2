//! The mark for owed announcements: a publisher sets it in the ledger while it cannot announce its
//! writes to the other nodes.
//!
//! The mark is an ordinary soft barrier on a reserved tag that no name hashes to. Therefore every
//! store keeps it, and every replica receives it with its next `SYNC`. If a failover loses it, the
//! replicas issue it again. A release without marks sees a tag that no entry carries. A publisher
//! has two such tags: it owes announcements while the barrier of the first is the newer one.

use super::{Replica, Target};
use crate::{PublisherId, TagHash};

/// The first 56 bits of the reserved tags.
const MAGIC: u128 = 0x0063_6b6f_7765_64ff;

/// The position of the lowest of those bits.
const SHIFT: u32 = 72;

/// The ledger's state of one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The first half of the publisher's identity.
    pub publisher: u64,
    /// The number of the barrier that last set the mark; 0 for never.
    pub owed: u64,
    /// The number of the barrier that last cleared it; 0 for never.
    pub paid: u64,
}

impl Mark {
    /// Whether the publisher owes announcements.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.owed > self.paid
    }
}

/// The tag whose barrier sets a publisher's mark.
#[must_use]
pub fn owed(publisher: PublisherId) -> Target {
    Target::Tag(tag(short(publisher), 0))
}

/// The tag whose barrier clears a publisher's mark.
#[must_use]
pub fn paid(publisher: PublisherId) -> Target {
    Target::Tag(tag(short(publisher), 1))
}

/// The part of a publisher's identity that its mark contains.
#[must_use]
pub fn short(publisher: PublisherId) -> u64 {
    (publisher.0 >> 64) as u64
}

fn tag(publisher: u64, kind: u128) -> TagHash {
    TagHash(MAGIC << SHIFT | u128::from(publisher) << 8 | kind)
}

impl TagHash {
    /// Whether this is a reserved tag, which no name hashes to.
    #[must_use]
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 >> SHIFT == MAGIC
    }

    /// Maps the hash of a name to a tag that is never reserved.
    #[must_use]
    #[inline]
    pub const fn of_name(self) -> Self {
        if self.is_reserved() { Self(self.0 ^ 1 << 127) } else { self }
    }
}

impl Replica {
    /// The marks that this node knows of, by publisher.
    pub fn marks(&self) -> impl Iterator<Item = Mark> {
        let all = tag(0, 0)..=tag(u64::MAX, 0xff);
        let mut marks: Vec<Mark> = Vec::new();
        for (TagHash(hash), levels) in self.levels.range(all) {
            #[expect(clippy::cast_possible_truncation, reason = "the 64 bits above the kind")]
            let (publisher, kind) = ((hash >> 8) as u64, hash & 0xff);
            if marks.last().is_none_or(|last| last.publisher != publisher) {
                marks.push(Mark { publisher, owed: 0, paid: 0 });
            }
            if let Some(mark) = marks.last_mut() {
                match kind {
                    0 => mark.owed = levels.soft,
                    1 => mark.paid = levels.soft,
                    _ => {}
                }
            }
        }
        marks.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_has_the_tag_of_a_mark() {
        let (Target::Tag(owed), Target::Tag(paid)) =
            (owed(PublisherId(u128::MAX)), paid(PublisherId(0)))
        else {
            panic!("marks are tags");
        };
        for tag in [owed, paid] {
            assert!(tag.is_reserved());
            assert!(!tag.of_name().is_reserved(), "a name whose hash this were has another");
        }
        let name = TagHash::of("products");
        assert_eq!(name, name.of_name());
    }
}
