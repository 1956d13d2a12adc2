use super::{Cache, GetMany, GetOrSetMany, RemoveMany, SetMany};
use crate::error::BoxError;
use crate::l2::Codec;

/// Many keys at once.
impl<C: Send + Sync + 'static> Cache<C> {
    /// [`get_or_set`](Cache::get_or_set) for many keys: one pass over L1, one multi-read of L2, one call
    /// of the factory with exactly the keys that are in neither and that nobody else is loading. The
    /// answers come in the order of the keys.
    ///
    /// The factory answers with pairs of key and value, in any order, one for each key it was given
    /// (a `HashMap` will do). It is called again for keys that another node was loading in vain,
    /// whose load was overtaken by an invalidation, or of which L2 says 100 ms later than of others that
    /// they are missing.
    ///
    /// # Errors
    ///
    /// As [`get_or_set`](Cache::get_or_set); the first of any key. [`ErrorKind::Factory`](crate::ErrorKind::Factory) names the
    /// keys that the factory's answer lacks.
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

    /// [`get`](Cache::get) for many keys, in one round trip; answers in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Cache::get); the first of any key.
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

    /// [`set`](Cache::set) for many keys, sent side by side. The receipt is the weakest of them.
    ///
    /// # Errors
    ///
    /// As [`set`](Cache::set): the first of any key, after all have been tried.
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

    /// [`remove`](Cache::remove) for many keys, sent side by side. The receipt is the weakest of them.
    ///
    /// # Errors
    ///
    /// As [`remove`](Cache::remove): the first of any key, after all have been tried.
    ///
    /// # Cancel safety
    ///
    /// From the first poll all of them hold on this node, and are repeated until L2 has them.
    pub fn remove_many(&self, keys: impl IntoIterator<Item: AsRef<str>>) -> RemoveMany<'_, C> {
        RemoveMany::new(self, keys)
    }
}
