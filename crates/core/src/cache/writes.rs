use std::borrow::Cow;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;

use futures_util::future::{FutureExt, join};

use super::Cache;
use super::requests::{
    entry_options, remove_options, set_options, setters, tags_option, write_options,
};
use crate::background::ensure_runtime_runs;
use crate::error::Error;
use crate::l2::Codec;
use crate::options::Choices;
use crate::protocol::ledger::Strength;
use crate::receipt::Receipt;
use crate::telemetry::spans;
use crate::write::{self, Reservation, removal};

type WriteFuture<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

/// The request of [`Cache::set`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Set<'a, T, C: Send + Sync + 'static> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    value: T,
    tags: Vec<String>,
    options: Choices,
    reservation: Option<Reservation>,
}

impl<'a, T, C> Set<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>, value: T) -> Self {
        Self { cache, key, value, tags: Vec::new(), options: Choices::default(), reservation: None }
    }

    tags_option!();

    /// Stores the value only if nothing changed the key, its tags or the cache since the
    /// reservation. Otherwise nothing is stored: the receipt says `Superseded` and is not
    /// [propagated](Receipt::is_propagated). With `require_propagation` it is an error, as is a
    /// reservation of another cache or key (`ErrorKind::InvalidOptions`).
    pub fn reserved(mut self, reservation: Reservation) -> Self {
        self.reservation = Some(reservation);
        self
    }

    set_options!();
}

impl<'a, T, C> IntoFuture for Set<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Receipt, Error>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { cache, key, value, tags, options, reservation } = self;
        Box::pin(async move {
            let (node, key) = (cache.node(), &*key);
            node.check_key(key)?;
            node.check_runtime(Some(key))?;
            if !node.enabled {
                return Ok(Receipt::local());
            }
            let (options, coded) = (options.over(node.options_for(key)), cache.coded());
            let set = match reservation {
                Some(it) => {
                    write::set_reserved(&coded, it, key, value, options, tags).left_future()
                }
                None => write::set(&coded, key, value, options, tags).right_future(),
            };
            let set = spans::call(spans::set(&node.telemetry, key), set);
            join(set, ensure_runtime_runs(node)).await.0
        })
    }
}

impl<T, C: Send + Sync + 'static> fmt::Debug for Set<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set").field("key", &self.key).finish_non_exhaustive()
    }
}

macro_rules! key_write {
    ($(#[$doc:meta])* $name:ident, $write:path, $span:path $(, $parts:ident)?) => {
        $(#[$doc])*
        #[must_use = "a request does nothing until awaited"]
        pub struct $name<'a, C> {
            cache: &'a Cache<C>,
            key: Cow<'a, str>,
            options: Choices,
        }

        impl<'a, C: Send + Sync + 'static> $name<'a, C> {
            pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>) -> Self {
                Self { cache, key, options: Choices::default() }
            }

            $(pub(super) fn $parts(self) -> (&'a Cache<C>, Cow<'a, str>, Choices) {
                (self.cache, self.key, self.options)
            })?

            remove_options!();
        }

        impl<'a, C: Send + Sync + 'static> IntoFuture for $name<'a, C> {
            type Output = Result<Receipt, Error>;
            type IntoFuture = WriteFuture<'a>;

            fn into_future(self) -> WriteFuture<'a> {
                let Self { cache, key, options } = self;
                Box::pin(async move {
                    let (node, key) = (cache.node(), &*key);
                    node.check_key(key)?;
                    node.check_runtime(Some(key))?;
                    let options = options.over(node.options_for(key));
                    options.validate(&node.place(Some(key)))?;
                    let write = $write(node, key, &options);
                    let write = spans::call($span(&node.telemetry, key), write);
                    join(write, ensure_runtime_runs(node)).await.0
                })
            }
        }

        impl<C> fmt::Debug for $name<'_, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("key", &self.key).finish_non_exhaustive()
            }
        }
    };
}

key_write! {
    /// The request of [`Cache::remove`], which runs when awaited.
    Remove, write::remove, spans::remove, into_parts
}

key_write! {
    /// The request of [`Cache::expire`], which runs when awaited.
    Expire, write::expire, spans::expire
}

/// The request of a removal by tags or of a clear, which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct RemoveByTag<'a, C> {
    cache: &'a Cache<C>,
    strength: Strength,
    /// `None` for a clear.
    tags: Option<Vec<String>>,
    options: Choices,
}

impl<'a, C: Send + Sync + 'static> RemoveByTag<'a, C> {
    pub(super) fn tags(cache: &'a Cache<C>, strength: Strength, tags: Vec<String>) -> Self {
        Self { cache, strength, tags: Some(tags), options: Choices::default() }
    }

    pub(super) fn everything(cache: &'a Cache<C>, strength: Strength) -> Self {
        Self { cache, strength, tags: None, options: Choices::default() }
    }

    write_options!();
    entry_options!();
    setters! {
        /// Whether to write to L2 in the background.
        background_l2(bool);
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for RemoveByTag<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { cache, strength, tags, options } = self;
        Box::pin(async move {
            let node = cache.node();
            node.check_runtime(None)?;
            let options = options.over(node.defaults.clone());
            options.validate(&node.place(None))?;
            let (span, removal) = match &tags {
                Some(tags) => (
                    spans::remove_by_tag(&node.telemetry, tags.len()),
                    removal::by_tags(node, strength, tags, &options).left_future(),
                ),
                None => (
                    spans::clear(&node.telemetry, 1),
                    removal::clear(node, strength, &options).right_future(),
                ),
            };
            join(spans::call(span, removal), ensure_runtime_runs(node)).await.0
        })
    }
}

impl<C> fmt::Debug for RemoveByTag<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoveByTag").field("tags", &self.tags).finish_non_exhaustive()
    }
}
