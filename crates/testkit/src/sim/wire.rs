//! Nodes that use the next wire version; other nodes do not understand their messages.

use bytes::Bytes;
use crinkle_core::backplane::Incoming;
use crinkle_core::l2::{Announce, AnnounceRemoval};

/// The wire version of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    This,
    Next,
}

const THIS: u8 = 1;
const NEXT: u8 = 2;

/// Replaces the version number of a message if it is `from`.
fn renumber(bytes: Bytes, from: u8, to: u8) -> Bytes {
    match &bytes[..] {
        [b'C', b'B', number, ..] if *number == from => {
            let mut bytes = bytes.to_vec();
            bytes[2] = to;
            bytes.into()
        }
        _ => bytes,
    }
}

impl Wire {
    /// Encodes a message as this node sends it.
    pub(super) fn sends(self, bytes: Bytes) -> Bytes {
        if self == Self::Next { renumber(bytes, THIS, NEXT) } else { bytes }
    }

    /// Decodes a received message: the next version understands both.
    pub(super) fn takes(self, incoming: Incoming) -> Incoming {
        match (self, incoming) {
            (Self::Next, Incoming::Message(bytes)) => {
                Incoming::Message(renumber(bytes, NEXT, THIS))
            }
            (_, incoming) => incoming,
        }
    }

    pub(super) fn understands(self, bytes: &[u8]) -> bool {
        self == Self::Next || bytes.get(2) != Some(&NEXT)
    }

    pub(super) fn announces(self, announce: Option<Announce>) -> Option<Announce> {
        announce.map(|announce| Announce { message: self.sends(announce.message), ..announce })
    }

    pub(super) fn numbers(self, announce: Option<AnnounceRemoval>) -> Option<AnnounceRemoval> {
        announce.map(|announce| AnnounceRemoval { head: self.sends(announce.head), ..announce })
    }
}
