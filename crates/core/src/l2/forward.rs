//! Implements `L2` for `Arc`, `Box` and types that dereference to an L2, forwarding every method.

use std::sync::Arc;

use super::L2;

#[doc(hidden)]
#[macro_export]
macro_rules! forward_l2 {
    ($ty:ty, $($bound:tt)*) => {
        #[::async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: $($bound)*> $crate::l2::L2 for $ty {
            fn bus(&self) -> Option<$crate::l2::BusId> {
                (**self).bus()
            }
            fn atomicity(&self) -> $crate::l2::Atomicity {
                (**self).atomicity()
            }
            async fn read(&self, key: &str, ask: Option<$crate::protocol::record::LoadLockRequest>) -> Result<$crate::l2::Read, $crate::l2::L2Error> {
                (**self).read(key, ask).await
            }
            async fn read_many(
                &self,
                asks: &[(String, Option<$crate::protocol::record::LoadLockRequest>)],
            ) -> Result<Vec<$crate::l2::Read>, $crate::l2::L2Error> {
                (**self).read_many(asks).await
            }
            fn replica_lag(&self) -> Option<::std::time::Duration> {
                (**self).replica_lag()
            }
            async fn read_replica(&self, key: &str) -> Option<$crate::l2::Found> {
                (**self).read_replica(key).await
            }
            async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<$crate::protocol::record::Head>>, $crate::l2::L2Error> {
                (**self).read_heads(keys).await
            }
            async fn put(
                &self,
                key: &str,
                expected: $crate::protocol::Version,
                record: $crate::l2::Record,
                announce: Option<$crate::l2::Announce>,
            ) -> Result<$crate::protocol::record::Put, $crate::l2::L2Error> {
                (**self).put(key, expected, record, announce).await
            }
            async fn set(
                &self,
                key: &str,
                record: $crate::l2::Record,
                deadline: Option<$crate::l2::Deadline>,
                announce: Option<$crate::l2::Announce>,
            ) -> Result<(), $crate::l2::L2Error> {
                (**self).set(key, record, deadline, announce).await
            }
            async fn remove(&self, key: &str, announce: Option<$crate::l2::Announce>) -> Result<(), $crate::l2::L2Error> {
                (**self).remove(key, announce).await
            }
            async fn expire(
                &self,
                key: &str,
                version: $crate::protocol::Version,
                announce: Option<$crate::l2::Announce>,
            ) -> Result<(), $crate::l2::L2Error> {
                (**self).expire(key, version, announce).await
            }
            async fn release(&self, key: &str, load_lock: $crate::protocol::Version) -> Result<(), $crate::l2::L2Error> {
                (**self).release(key, load_lock).await
            }
            async fn renew(&self, key: &str, load_lock: $crate::protocol::Version, ttl_ms: u64) -> Result<bool, $crate::l2::L2Error> {
                (**self).renew(key, load_lock, ttl_ms).await
            }
            async fn advance(
                &self,
                ledger: &str,
                ask: &$crate::protocol::ledger::Advance,
                announce: Option<$crate::l2::AnnounceRemoval>,
            ) -> Result<$crate::protocol::ledger::Advanced, $crate::l2::L2Error> {
                (**self).advance(ledger, ask, announce).await
            }
            async fn sync(&self, ledger: &str, ask: &$crate::protocol::ledger::SyncAsk) -> Result<$crate::protocol::ledger::SyncReply, $crate::l2::L2Error> {
                (**self).sync(ledger, ask).await
            }
            async fn frontier(&self, ledger: &str, epoch: $crate::protocol::Epoch) -> Result<Option<u64>, $crate::l2::L2Error> {
                (**self).frontier(ledger, epoch).await
            }

            async fn shared_frontier(&self, ledger: &str, epoch: $crate::protocol::Epoch) -> Result<Option<u64>, $crate::l2::L2Error> {
                (**self).shared_frontier(ledger, epoch).await
            }
            fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
                (**self).is_ledger_near(ledger, key)
            }
            async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, $crate::l2::L2Error> {
                (**self).replication_id(server).await
            }
            fn server_of(&self, key: &str) -> Option<::std::sync::Arc<str>> {
                (**self).server_of(key)
            }
            fn servers(&self) -> Vec<::std::sync::Arc<str>> {
                (**self).servers()
            }
            fn replicas(&self) -> Vec<$crate::ServerHealth> {
                (**self).replicas()
            }
        }
    };
}

forward_l2!(Arc<T>, L2 + ?Sized);
forward_l2!(Box<T>, L2 + ?Sized);
