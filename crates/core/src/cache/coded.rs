//! A node together with the codec of one type.

use std::ops::Deref;
use std::sync::Arc;

use super::Inner;
use crate::l2::Codec;

/// A node and the codec of the values of one call. Only what encodes or decodes needs the codec;
/// everything else works with the node.
pub(crate) struct Coded<T> {
    inner: Arc<Inner>,
    pub(crate) codec: Arc<dyn Codec<T>>,
}

impl<T> Coded<T> {
    pub(crate) fn new(inner: Arc<Inner>, codec: Arc<dyn Codec<T>>) -> Self {
        Self { inner, codec }
    }
}

impl<T> Clone for Coded<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), codec: Arc::clone(&self.codec) }
    }
}

impl<T> Deref for Coded<T> {
    type Target = Arc<Inner>;

    fn deref(&self) -> &Arc<Inner> {
        &self.inner
    }
}
