use super::tags::{IntoTags, collected};
use super::{Cache, IntoKey, Remove, RemoveByTag, Set};
use crate::l2::Codec;
use crate::protocol::ledger::Strength;

/// Methods that change cached values.
impl<C: Send + Sync + 'static> Cache<C> {
    /// Stores a value in L1 and L2, and notifies the other nodes, which drop their copies.
    ///
    /// L2, not the source, orders concurrent blind `set`s of one key; prefer `remove`.
    ///
    /// # Errors
    ///
    /// [`Codec`](crate::ErrorKind::Codec) or [`TooLarge`](crate::ErrorKind::TooLarge) (nothing is
    /// stored then), [`NotPropagated`](crate::ErrorKind::NotPropagated) with `require_propagation`,
    /// and invalid keys, tags and options. While L2 is down it succeeds, and the receipt says
    /// `Queued`.
    ///
    /// # Cancel safety
    ///
    /// A dropped `set` may or may not have taken effect. An invalidation of the key follows it, so
    /// that no older value remains.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// let receipt = cache.set("price:42", 1_999_u32).tags(["prices"]).await?;
    /// if !receipt.is_propagated() {
    ///     println!("other nodes receive it later: {receipt:?}");
    /// }
    /// assert_eq!(cache.get::<u32>("price:42").await?.as_deref(), Some(&1_999));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set<'a, 'k: 'a, T>(&'a self, key: impl IntoKey<'k>, value: T) -> Set<'a, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        Set::new(self, key.into_key(), value)
    }

    /// Removes a key on every node and in L2; fail-safe cannot use the old value either.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey),
    /// [`InvalidOptions`](crate::ErrorKind::InvalidOptions);
    /// [`NotPropagated`](crate::ErrorKind::NotPropagated) with `require_propagation`. While L2 is
    /// down it succeeds, and the receipt says `Queued`.
    ///
    /// # Cancel safety
    ///
    /// From the first poll the removal holds on this node, and the cache retries it until L2 has
    /// it.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// cache.set("price:42", 1_999_u32).await?;
    /// cache.remove("price:42").await?; // after the commit of what changed the source
    /// assert!(cache.get::<u32>("price:42").allow_stale().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Remove<'a, C> {
        Remove::new(self, key.into_key(), Strength::Hard)
    }

    /// Makes a key stale on every node and in L2; fail-safe may still use the value.
    ///
    /// # Errors
    ///
    /// As [`remove`](Cache::remove).
    ///
    /// # Cancel safety
    ///
    /// As [`remove`](Cache::remove).
    ///
    /// ```
    /// # use crinkle_core::{Cache, FailSafe};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// let hour = FailSafe::for_up_to(Duration::from_secs(3600));
    /// cache.set("price:42", 1_999_u32).fail_safe(hour).await?;
    /// cache.expire("price:42").await?;
    /// assert!(cache.get::<u32>("price:42").await?.is_none());
    /// let stale = cache.get::<u32>("price:42").allow_stale().await?;
    /// assert!(stale.is_some_and(|price| price.meta().is_stale()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Remove<'a, C> {
        Remove::new(self, key.into_key(), Strength::Soft)
    }

    /// Removes every entry that carries the tag; fail-safe cannot use the old values either. It
    /// writes a single number, whatever the count of entries.
    ///
    /// # Errors
    ///
    /// [`InvalidTag`](crate::ErrorKind::InvalidTag),
    /// [`InvalidOptions`](crate::ErrorKind::InvalidOptions);
    /// [`NotPropagated`](crate::ErrorKind::NotPropagated) with `require_propagation`. While L2 is
    /// down it succeeds, and the receipt says `Queued`.
    ///
    /// # Cancel safety
    ///
    /// From the first poll the removal holds on this node, and the cache retries it until L2 has
    /// it.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// cache.set("product:42", 1_999_u32).tags(["products", "category:7"]).await?;
    /// cache.remove_by_tag("category:7").await?;
    /// assert!(cache.get::<u32>("product:42").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_by_tag(&self, tag: impl Into<String>) -> RemoveByTag<'_, C> {
        RemoveByTag::tags(self, Strength::Hard, vec![tag.into()])
    }

    /// Removes by several tags, as [`remove_by_tag`](Cache::remove_by_tag) does, in one round trip
    /// (up to 64 tags).
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn remove_by_tags(&self, tags: impl IntoIterator<Item: IntoTags>) -> RemoveByTag<'_, C> {
        RemoveByTag::tags(self, Strength::Hard, collected(tags))
    }

    /// Makes every entry that carries the tag stale; fail-safe may still use the values.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn expire_by_tag(&self, tag: impl Into<String>) -> RemoveByTag<'_, C> {
        RemoveByTag::tags(self, Strength::Soft, vec![tag.into()])
    }

    /// Expires by several tags, as [`expire_by_tag`](Cache::expire_by_tag) does, in one round trip
    /// (up to 64 tags).
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn expire_by_tags(&self, tags: impl IntoIterator<Item: IntoTags>) -> RemoveByTag<'_, C> {
        RemoveByTag::tags(self, Strength::Soft, collected(tags))
    }

    /// Makes every entry of this cache stale, on every node; fail-safe may still use the values.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    #[doc(alias = "clear")]
    pub fn expire_all(&self) -> RemoveByTag<'_, C> {
        RemoveByTag::everything(self, Strength::Soft)
    }

    /// Removes every entry of this cache, on every node; fail-safe cannot use the old values
    /// either.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// cache.set("price:42", 1_999_u32).await?;
    /// cache.remove_all().await?;
    /// assert!(cache.get::<u32>("price:42").allow_stale().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "clear")]
    pub fn remove_all(&self) -> RemoveByTag<'_, C> {
        RemoveByTag::everything(self, Strength::Hard)
    }

    /// The former name of [`expire_all`](Cache::expire_all).
    #[doc(hidden)]
    pub fn clear(&self) -> RemoveByTag<'_, C> {
        self.expire_all()
    }

    /// The former name of [`remove_all`](Cache::remove_all).
    #[doc(hidden)]
    pub fn clear_hard(&self) -> RemoveByTag<'_, C> {
        self.remove_all()
    }
}
