use std::ops::Deref;
use std::sync::Arc;

use super::Entry;

/// A value: stored in its entry, or shared with an older entry that the source confirmed.
#[derive(Debug)]
pub(crate) enum Shared<T> {
    /// Stored in this entry.
    Own(T),
    /// Stored in an older entry.
    Confirmed(Arc<Entry<T>>),
}

impl<T> Shared<T> {
    /// Shares the value of `entry` with a newer entry. Never a chain: it points to the oldest.
    pub(crate) fn of(entry: &Arc<Entry<T>>) -> Self {
        match &entry.value {
            Self::Own(_) => Self::Confirmed(Arc::clone(entry)),
            Self::Confirmed(oldest) => Self::Confirmed(Arc::clone(oldest)),
        }
    }

    /// Returns the value, cloned if it belongs to an older entry.
    pub(crate) fn into_inner(self) -> T
    where
        T: Clone,
    {
        match self {
            Self::Own(value) => value,
            Self::Confirmed(entry) => T::clone(&entry.value),
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(value) => value,
            Self::Confirmed(entry) => &entry.value,
        }
    }
}

/// The validators for a conditional request to the source, in the source's format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: Option<Box<str>>,
    pub(crate) last_modified: Option<Box<str>>,
}

impl Validators {
    /// Boxes the validators, if there are any.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}
