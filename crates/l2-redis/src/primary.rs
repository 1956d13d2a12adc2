use std::fmt;
use std::sync::Arc;

use redis::{Cmd, RedisResult, Value};

use crate::cluster::{Cluster, Watch};
use crate::slots::Address;

/// A server of a cluster that takes writes.
#[derive(Clone)]
pub struct Primary {
    cluster: Cluster,
    address: Address,
}

impl Primary {
    pub(crate) async fn all(cluster: &Cluster) -> RedisResult<Vec<Self>> {
        let addresses = cluster.slots().await?.primaries();
        drop(cluster.refresh());
        let primary = |address| Self { cluster: cluster.clone(), address };
        Ok(addresses.into_iter().map(primary).collect())
    }

    /// What [`L2::server_of`](crinkle_core::l2::L2::server_of) calls it.
    pub(crate) fn name(&self) -> Arc<str> {
        named(&self.address)
    }

    pub(crate) fn into_address(self) -> Address {
        self.address
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.address.0, self.address.1)
    }

    /// Sends a command there, on the connection that the store's commands take. It is not sent on.
    ///
    /// # Errors
    ///
    /// What the server says, or that it cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the answer up; the command may run.
    pub async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let mut watch = Watch { cluster: &self.cluster, answered: false };
        let answer = self.cluster.send(&self.address, cmd, false).await?;
        watch.answered = true;
        Ok(answer)
    }
}

/// What a server of a cluster is called.
pub(crate) fn named((host, port): &Address) -> Arc<str> {
    format!("{host}:{port}").into()
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Primary").field(&self.address).finish()
    }
}
