//! Announcements owed: the mark that a publisher leaves in the ledger while it cannot tell the others
//! what it writes.
//!
//! The mark is an ordinary soft barrier on a tag that no name has. So every store keeps it, every replica
//! has it with its next `SYNC`, a failover that loses it has it issued again, and a version that knows of
//! no marks sees a tag that nothing carries. A publisher has two such tags: it owes while the barrier of
//! the first is the newer one.

use super::{Replica, Target};
use crate::protocol::{PublisherId, TagHash};

/// The first 56 bits of the tags that no name has.
const MAGIC: u128 = 0x0063_6b6f_7765_64ff;

/// Where they end.
const SHIFT: u32 = 72;

/// What a ledger says of one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The first half of its identity.
    pub publisher: u64,
    /// The number with which it last said that it owes announcements; 0 for never.
    pub owed: u64,
    /// The number with which it last said that it does no more.
    pub paid: u64,
}

impl Mark {
    /// Whether announcements are owed.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.owed > self.paid
    }
}

/// The tag whose barrier says that a publisher owes announcements.
#[must_use]
pub fn owed(publisher: PublisherId) -> Target {
    Target::Tag(tag(short(publisher), 0))
}

/// The tag whose barrier says that it does no more.
#[must_use]
pub fn paid(publisher: PublisherId) -> Target {
    Target::Tag(tag(short(publisher), 1))
}

/// The part of a publisher's identity that its mark has.
pub(crate) fn short(publisher: PublisherId) -> u64 {
    (publisher.0 >> 64) as u64
}

fn tag(publisher: u64, kind: u128) -> TagHash {
    TagHash(MAGIC << SHIFT | u128::from(publisher) << 8 | kind)
}

impl TagHash {
    /// Whether this is a tag that no name has.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 >> SHIFT == MAGIC
    }

    /// The hash of a name, which is never reserved.
    pub(crate) const fn of_name(self) -> Self {
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
