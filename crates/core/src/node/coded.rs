//! A node together with the codec of one type.

use std::ops::Deref;
use std::sync::Arc;

use super::Node;
use crate::l2::Codec;

/// A node and the codec of the values of one call. Only what encodes or decodes needs the codec;
/// everything else works with the node.
pub(crate) struct Coded<T> {
    node: Arc<Node>,
    pub(crate) codec: Arc<dyn Codec<T>>,
}

impl<T> Coded<T> {
    pub(crate) fn new(node: Arc<Node>, codec: Arc<dyn Codec<T>>) -> Self {
        Self { node, codec }
    }
}

impl<T> Clone for Coded<T> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), codec: Arc::clone(&self.codec) }
    }
}

impl<T> Deref for Coded<T> {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}
