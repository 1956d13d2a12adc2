use std::ops::Deref;
use std::sync::Arc;

use super::Entry;

/// A value: the entry's own, or that of an older entry which the source has confirmed.
#[derive(Debug)]
pub(crate) enum Shared<T> {
    /// In this entry.
    Own(T),
    /// In an older one.
    Confirmed(Arc<Entry<T>>),
}

impl<T> Shared<T> {
    /// The value of `entry`, for a newer entry. Never a chain: the oldest holds it.
    pub(crate) fn of(entry: &Arc<Entry<T>>) -> Self {
        match &entry.value {
            Self::Own(_) => Self::Confirmed(Arc::clone(entry)),
            Self::Confirmed(oldest) => Self::Confirmed(Arc::clone(oldest)),
        }
    }

    /// Out of its entry, cloned if others hold it.
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

/// What a source gave to revalidate the value with, as it said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: Option<Box<str>>,
    pub(crate) last_modified: Option<Box<str>>,
}

impl Validators {
    /// Boxed, if there is anything to keep.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}
