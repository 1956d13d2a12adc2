//! Implements `L2` for `Arc`, `Box` and types that dereference to an L2, forwarding every method.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, PlainL2, PlainStore,
    Read, Record,
};
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};

macro_rules! forward {
    ($ty:ty, $($bound:tt)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: $($bound)*> L2 for $ty {
            fn bus(&self) -> Option<BusId> {
                (**self).bus()
            }
            fn atomicity(&self) -> Atomicity {
                (**self).atomicity()
            }
            async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
                (**self).read(key, ask).await
            }
            async fn read_many(
                &self,
                asks: &[(String, Option<LoadLockRequest>)],
            ) -> Result<Vec<Read>, L2Error> {
                (**self).read_many(asks).await
            }
            fn replica_lag(&self) -> Option<Duration> {
                (**self).replica_lag()
            }
            async fn read_replica(&self, key: &str) -> Option<Found> {
                (**self).read_replica(key).await
            }
            async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
                (**self).read_heads(keys).await
            }
            async fn put(
                &self,
                key: &str,
                expected: Version,
                record: Record,
                announce: Option<Announce>,
            ) -> Result<Put, L2Error> {
                (**self).put(key, expected, record, announce).await
            }
            async fn set(
                &self,
                key: &str,
                record: Record,
                deadline: Option<Deadline>,
                announce: Option<Announce>,
            ) -> Result<(), L2Error> {
                (**self).set(key, record, deadline, announce).await
            }
            async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
                (**self).remove(key, announce).await
            }
            async fn expire(
                &self,
                key: &str,
                version: Version,
                announce: Option<Announce>,
            ) -> Result<(), L2Error> {
                (**self).expire(key, version, announce).await
            }
            async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
                (**self).release(key, load_lock).await
            }
            async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
                (**self).renew(key, load_lock, ttl_ms).await
            }
            async fn advance(
                &self,
                ledger: &str,
                ask: &Advance,
                announce: Option<AnnounceRemoval>,
            ) -> Result<Advanced, L2Error> {
                (**self).advance(ledger, ask, announce).await
            }
            async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
                (**self).sync(ledger, ask).await
            }
            async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
                (**self).frontier(ledger, epoch).await
            }
            fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
                (**self).is_ledger_near(ledger, key)
            }
            async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, L2Error> {
                (**self).replication_id(server).await
            }
            fn server_of(&self, key: &str) -> Option<Arc<str>> {
                (**self).server_of(key)
            }
            fn servers(&self) -> Vec<Arc<str>> {
                (**self).servers()
            }
            fn replicas(&self) -> Vec<crate::ServerHealth> {
                (**self).replicas()
            }
        }
    };
}

forward!(Arc<T>, L2 + ?Sized);
forward!(Box<T>, L2 + ?Sized);
forward!(PlainL2<T>, PlainStore);
