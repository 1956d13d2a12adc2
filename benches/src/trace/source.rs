//! The cached values, and how old an answer may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::Result;
use crinkle::Cache;
use futures_util::future::LocalBoxFuture;

use crate::workload::Product;

/// The source of truth: a version per page.
pub(crate) struct Source {
    versions: Vec<AtomicU32>,
    /// The version whose removal has returned.
    removed: Vec<AtomicU32>,
    pub(crate) calls: AtomicU64,
}

impl Source {
    pub(super) fn new(pages: usize) -> Arc<Self> {
        let versions = || (0..pages).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { versions: versions(), removed: versions(), calls: AtomicU64::new(0) })
    }

    /// Loads a page, as a factory does.
    pub(crate) fn load(&self, page: usize) -> Product {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Product::version(page, self.versions[page].load(Ordering::SeqCst))
    }

    /// Changes a page; returns its new version.
    pub(super) fn change(&self, page: usize) -> u32 {
        self.versions[page].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Forbids older versions from now on.
    pub(super) fn settle(&self, page: usize, version: u32) {
        self.removed[page].fetch_max(version, Ordering::SeqCst);
    }

    /// The oldest version that may be answered.
    pub(super) fn oldest(&self, page: usize) -> u32 {
        self.removed[page].load(Ordering::SeqCst)
    }
}

/// Nodes that share a Redis.
pub(crate) trait Cluster {
    /// Reads a page on a node; returns its version.
    fn read<'a>(
        &'a self,
        node: usize,
        key: &'a str,
        page: usize,
        source: &'a Arc<Source>,
    ) -> LocalBoxFuture<'a, Result<u32>>;

    /// Removes a page on a node.
    fn remove<'a>(&'a self, node: usize, key: &'a str) -> LocalBoxFuture<'a, Result<()>>;
}

impl Cluster for Vec<Cache> {
    fn read<'a>(
        &'a self,
        node: usize,
        key: &'a str,
        page: usize,
        source: &'a Arc<Source>,
    ) -> LocalBoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            let source = Arc::clone(source);
            let load = move |_| async move { crinkle::ok(source.load(page)) };
            Ok(self[node].get_or_set(key, load).await?.price_cents)
        })
    }

    fn remove<'a>(&'a self, node: usize, key: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self[node].remove(key).await?;
            Ok(())
        })
    }
}
