//! The calls that simulated callers make.

use rand::Rng;
use rand::rngs::StdRng;

use super::run::{Run, draw};
use crate::history::{Scope, What};

/// One call that a caller wants to make.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Load {
        key: u8,
        run: Run,
    },
    LoadMany {
        keys: Vec<u8>,
        run: Run,
    },
    Get {
        key: u8,
        stale: bool,
    },
    GetMany {
        keys: Vec<u8>,
    },
    /// A strict read: the value must be current in L2 and the ledger, or loaded by this run.
    Strict {
        key: u8,
        run: Option<Run>,
    },
    /// Waits for a removal that another call numbered.
    After,
    /// Reads as a type that no value was stored as.
    GetOther {
        key: u8,
    },
    /// A read after all faults have ended.
    LastLook {
        key: u8,
    },
    Set {
        keys: Vec<u8>,
    },
    Remove {
        keys: Vec<u8>,
    },
    RemoveAndTags {
        keys: Vec<u8>,
        tags: u8,
    },
    Expire {
        key: u8,
    },
    RemoveTags {
        tags: u8,
    },
    ExpireTag {
        tag: u8,
    },
    Clear {
        hard: bool,
    },
}

/// Draws a random call.
pub(super) fn wish(rng: &mut StdRng, keys: u8) -> Wish {
    let key = rng.random_range(0..keys);
    let several = |rng: &mut StdRng| {
        let from = rng.random_range(0..keys);
        (from..keys).collect::<Vec<_>>()
    };
    match rng.random_range(0..100) {
        0..40 => Wish::Load { key, run: draw(rng) },
        40..43 => Wish::Strict { key, run: rng.random_bool(0.5).then(|| draw(rng)) },
        43..46 => Wish::After,
        46..56 => Wish::Get { key, stale: rng.random_bool(0.5) },
        56..60 => Wish::LoadMany { keys: several(rng), run: draw(rng) },
        60..62 => Wish::GetMany { keys: several(rng) },
        62..63 => Wish::GetOther { key },
        63..71 => Wish::Remove { keys: vec![key] },
        71..80 => Wish::Set { keys: vec![key] },
        80..84 => Wish::Expire { key },
        84..93 => Wish::RemoveTags { tags: 1 << rng.random_range(0..3_u8) },
        93..94 => Wish::RemoveTags { tags: rng.random_range(1..8) },
        94..96 => Wish::ExpireTag { tag: 1 << rng.random_range(0..3_u8) },
        96..97 => Wish::Clear { hard: false },
        97..98 => Wish::Clear { hard: true },
        98..99 => Wish::Set { keys: several(rng) },
        _ => Wish::Remove { keys: several(rng) },
    }
}

impl Wish {
    pub(super) fn what(&self) -> What {
        match self {
            Self::Load { .. } | Self::LoadMany { .. } => What::Load,
            Self::Get { .. } | Self::GetMany { .. } | Self::GetOther { .. } | Self::After => {
                What::Get
            }
            Self::Strict { run, .. } => What::Strict { loads: run.is_some() },
            Self::LastLook { .. } => What::LastLook,
            Self::Set { .. } => What::Set(usize::MAX),
            Self::Remove { .. }
            | Self::RemoveAndTags { .. }
            | Self::RemoveTags { .. }
            | Self::Clear { hard: true } => What::Invalidate { hard: true },
            Self::Expire { .. } | Self::ExpireTag { .. } | Self::Clear { hard: false } => {
                What::Invalidate { hard: false }
            }
        }
    }

    pub(super) fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Load { key, .. }
            | Self::Get { key, .. }
            | Self::Strict { key, .. }
            | Self::GetOther { key }
            | Self::LastLook { key }
            | Self::Expire { key } => vec![Scope::Key(*key)],
            Self::LoadMany { keys, .. }
            | Self::GetMany { keys }
            | Self::Set { keys }
            | Self::RemoveAndTags { keys, .. }
            | Self::Remove { keys } => keys.iter().map(|key| Scope::Key(*key)).collect(),
            Self::RemoveTags { tags } => vec![Scope::Tags(*tags)],
            Self::ExpireTag { tag } => vec![Scope::Tags(*tag)],
            Self::Clear { .. } => vec![Scope::All],
            Self::After => vec![Scope::Tags(0)],
        }
    }

    /// The tags that the call removes beside its keys. The judge treats them as a call of their
    /// own.
    pub(super) fn beside(&self) -> Option<Scope> {
        match self {
            Self::RemoveAndTags { tags, .. } => Some(Scope::Tags(*tags)),
            _ => None,
        }
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self.what(), What::Set(_) | What::Invalidate { .. })
    }
}
