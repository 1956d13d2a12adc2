use super::{Cache, GetMany, GetOrSetMany, RemoveMany, SetMany};
use crate::error::BoxError;
use crate::l2::Codec;
use crate::protocol::ledger::Strength;

/// Methods for many keys at once.
impl<C: Send + Sync + 'static> Cache<C> {
    /// Returns or loads many keys, as [`get_or_set`](Cache::get_or_set) does for one. It takes one
    /// pass over L1, one multi-read of L2, and one call of the factory. The factory gets exactly
    /// the keys that neither level has and that no other call is loading. The results are in the
    /// order of the keys.
    ///
    /// The factory returns pairs of key and value, in any order, one for each key it was given (for
    /// example a `HashMap`). The cache calls it again for a key if
    ///
    /// - another node was loading the key and failed,
    /// - an invalidation overtook the load of the key, or
    /// - L2 reports the key as missing 100 ms later than other keys.
    ///
    /// # Errors
    ///
    /// As [`get_or_set`](Cache::get_or_set), for the first key that fails.
    /// [`ErrorKind::Factory`](crate::ErrorKind::Factory) names the keys that the factory's result
    /// lacks.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_set`](Cache::get_or_set).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let cache = crinkle_core::Cache::builder("shop").build()?;
    /// let lengths = cache
    ///     .get_or_set_many(["one", "three"], |missing| async move {
    ///         crinkle_core::ok(missing.into_iter().map(|key| (key.clone(), key.len())))
    ///     })
    ///     .await?;
    /// assert_eq!(lengths.iter().map(|len| **len).collect::<Vec<_>>(), [3, 5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_set_many<T, F, Fut, M, K, E>(
        &self,
        keys: impl IntoIterator<Item: AsRef<str>>,
        factory: F,
    ) -> GetOrSetMany<'_, T, F, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, T)> + 'static,
        K: Into<String>,
        E: Into<BoxError> + 'static,
    {
        GetOrSetMany::new(self, keys, factory)
    }

    /// Returns many values, as [`get`](Cache::get) does for one, in one round trip and in the order
    /// of the keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Cache::get), for the first key that fails.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn get_many<T>(&self, keys: impl IntoIterator<Item: AsRef<str>>) -> GetMany<'_, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        GetMany::new(self, keys)
    }

    /// Stores many values, as [`set`](Cache::set) does for one, with concurrent writes. The receipt
    /// is the weakest of them.
    ///
    /// # Errors
    ///
    /// As [`set`](Cache::set), for the first key that fails, after all writes were attempted.
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Cache::set), for each key.
    pub fn set_many<T>(
        &self,
        entries: impl IntoIterator<Item = (impl AsRef<str>, T)>,
    ) -> SetMany<'_, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        SetMany::new(self, entries)
    }

    /// Removes many keys, as [`remove`](Cache::remove) does for one, with concurrent writes. The
    /// receipt is the weakest of them.
    ///
    /// # Errors
    ///
    /// As [`remove`](Cache::remove), for the first key that fails, after all writes were attempted.
    ///
    /// # Cancel safety
    ///
    /// From the first poll all removals hold on this node, and the cache retries them until L2 has
    /// them.
    pub fn remove_many(&self, keys: impl IntoIterator<Item: AsRef<str>>) -> RemoveMany<'_, C> {
        RemoveMany::new(self, keys, Strength::Hard)
    }

    /// Makes many keys stale, as [`expire`](Cache::expire) does for one, with concurrent writes.
    /// The receipt is the weakest of them.
    ///
    /// # Errors
    ///
    /// As [`remove_many`](Cache::remove_many).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_many`](Cache::remove_many).
    pub fn expire_many(&self, keys: impl IntoIterator<Item: AsRef<str>>) -> RemoveMany<'_, C> {
        RemoveMany::new(self, keys, Strength::Soft)
    }
}
