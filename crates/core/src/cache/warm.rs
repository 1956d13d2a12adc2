use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::Cache;
use crate::error::Error;
use crate::l2::Codec;

/// The progress and the result of [`Cache::warm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// The number of keys to warm.
    pub keys: usize,
    /// The number of keys requested from L2 so far.
    pub asked: usize,
    /// The number of requested keys that are in L1 now.
    pub found: usize,
}

/// The request of [`Cache::warm`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Warm<'a, T, C> {
    cache: &'a Cache<C>,
    keys: Vec<Box<str>>,
    page: usize,
    concurrency: usize,
    progress: Arc<dyn Fn(Warmed) + Send + Sync>,
    value: PhantomData<fn() -> T>,
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// Fills L1 from L2 for these keys, in pages; runs no factory. Use it on a node that has just
    /// started, with the keys from [`export_hot_keys`](Cache::export_hot_keys) on another node.
    ///
    /// # Errors
    ///
    /// As [`get`](Cache::get); the first error stops the warming.
    ///
    /// # Cancel safety
    ///
    /// Values that were already read stay in L1.
    ///
    /// ```
    /// # use crinkle_core::{Cache, l2::MemoryL2};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let shared = MemoryL2::new();
    /// let old = Cache::builder("shop").l2(shared.clone()).build()?;
    /// old.set_many([("a", 1), ("b", 2)]).await?;
    ///
    /// let new = Cache::builder("shop").l2(shared).build()?;
    /// let warmed = new
    ///     .warm::<i32>(old.export_hot_keys(100))
    ///     .progress(|so_far| println!("{} of {}", so_far.asked, so_far.keys))
    ///     .await?;
    /// assert_eq!(warmed.found, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn warm<T>(&self, keys: impl IntoIterator<Item: AsRef<str>>) -> Warm<'_, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        let keys = keys.into_iter().map(|key| key.as_ref().into()).collect();
        let (progress, value) = (Arc::new(|_| ()), PhantomData);
        Warm { cache: self, keys, page: 500, concurrency: 4, progress, value }
    }

    /// Returns the keys with the most hits in L1, hottest first, at most `n`. One hit in 64 is
    /// sampled, so the order is approximate. Costs a walk over L1.
    #[must_use]
    pub fn export_hot_keys(&self, n: usize) -> Vec<String> {
        let node = self.node();
        let now = node.now();
        let mut hot: Vec<_> = node.l1.all().filter(|e| now < e.meta().physical).collect();
        hot.sort_by_key(|e| std::cmp::Reverse((e.meta().heat(), e.meta().created)));
        hot.iter().take(n).map(|e| e.meta().key.to_string()).collect()
    }
}

impl<T, C> Warm<'_, T, C> {
    /// Sets how many keys one multi-read requests. Default: 500.
    pub fn page(mut self, keys: usize) -> Self {
        self.page = keys.max(1);
        self
    }

    /// Sets the number of concurrent multi-reads. Default: 4.
    pub fn concurrency(mut self, reads: usize) -> Self {
        self.concurrency = reads.max(1);
        self
    }

    /// Sets a callback that receives the progress after each page.
    pub fn progress(mut self, report: impl Fn(Warmed) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(report);
        self
    }
}

impl<'a, T, C> IntoFuture for Warm<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Warmed, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, page, concurrency, progress, .. } = self;
        Box::pin(async move {
            let mut warmed = Warmed { keys: keys.len(), ..Warmed::default() };
            let pages: Vec<_> = keys.chunks(page).map(<[_]>::to_vec).collect();
            let reads = pages.into_iter().map(|page| async move {
                let found = cache.get_many::<T>(&page).await?;
                Ok((page.len(), found.iter().flatten().count()))
            });
            let mut reads = stream::iter(reads).buffer_unordered(concurrency);
            while let Some(read) = reads.next().await {
                let (asked, found) = read?;
                warmed.asked += asked;
                warmed.found += found;
                progress(warmed);
            }
            Ok(warmed)
        })
    }
}

impl<T, C> fmt::Debug for Warm<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}
