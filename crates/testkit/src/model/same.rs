//! State equality: two states are equal if they differ only in ids, or in which of the two nodes is
//! which. Ids are compared for equality only.

use std::hash::{Hash, Hasher};

/// Numbers from here on are ids; smaller ones are plain numbers.
pub(super) const FIRST_NAME: u64 = 1 << 32;

/// Hashes a state. `view` writes the relevant parts, beginning with the given node.
pub(super) fn hash<H: Hasher>(to: &mut H, views: &[usize], view: impl Fn(usize, &mut Names)) {
    let seen = views.iter().map(|first| {
        let mut names = Names::default();
        view(*first, &mut names);
        names.written
    });
    to.write(&seen.min().unwrap_or_default());
}

/// Collects what to hash; an id becomes the place of its first appearance.
#[derive(Debug, Default)]
pub(super) struct Names {
    written: Vec<u8>,
    known: Vec<u64>,
}

impl Names {
    /// Writes things by id, regardless of their order.
    pub(super) fn unordered<T: Hash>(&mut self, all: impl Iterator<Item = (u64, T)>) {
        let mut all: Vec<_> = all.map(|(name, thing)| (self.place(name), thing)).collect();
        all.sort_by_key(|(place, _)| *place);
        all.hash(self);
    }

    fn place(&mut self, name: u64) -> usize {
        self.known.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.known.push(name);
            self.known.len() - 1
        })
    }
}

impl Hasher for Names {
    fn write(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        let is_name = number >= FIRST_NAME;
        let number = if is_name { FIRST_NAME + self.place(number) as u64 } else { number };
        self.write(&number.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        unreachable!("only what is written counts")
    }
}
