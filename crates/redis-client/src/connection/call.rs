//! A call with its own way to talk to a server, for stores.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Script};

/// A call of one script that also uses values of the connection that carries it, such as what is
/// known of the server's clock. [`RedisClient::call`](crate::RedisClient::call) routes it.
pub trait Call: Sync {
    /// The decoded reply.
    type Reply: Send;

    /// The key that decides which server gets the call.
    fn key(&self) -> &str;

    /// The script that the call runs.
    fn script(&self) -> &Script;

    /// Sends the call to one server. `attached` lives as long as the connection.
    fn send(
        &self,
        commands: &mut MultiplexedConnection,
        attached: &Attachments,
        hop: Hop,
    ) -> impl Future<Output = RedisResult<Self::Reply>> + Send;
}

/// How to send a call to a server.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Hop {
    /// The server is importing the slot: send `ASKING` first.
    pub asking: bool,
    /// The server does not know the script: send its full text.
    pub whole: bool,
}

/// Values that live as long as one connection to a server, at most one of each type. Clones share
/// them.
#[derive(Clone, Default)]
pub struct Attachments {
    values: Arc<Mutex<Vec<Arc<dyn Any + Send + Sync>>>>,
}

impl Attachments {
    /// The value of this type; the first call creates it.
    #[must_use]
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = self.values.lock();
        let attached = values.iter().find_map(|value| Arc::clone(value).downcast().ok());
        attached.unwrap_or_else(|| {
            let created = Arc::<T>::default();
            values.push(Arc::<T>::clone(&created));
            created
        })
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachments").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_connection_has_one_value_of_each_type() {
        let attached = Attachments::default();
        attached.get::<AtomicUsize>().store(1, Ordering::Relaxed);
        drop(attached.get::<Mutex<String>>());
        assert_eq!(attached.get::<AtomicUsize>().load(Ordering::Relaxed), 1);
        assert_eq!(Attachments::default().get::<AtomicUsize>().load(Ordering::Relaxed), 0);
    }
}
