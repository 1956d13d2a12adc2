use std::fmt;
use std::sync::Arc;

use redis::{Cmd, RedisResult, Value};

use crate::cluster::slots::{Address, server_name};
use crate::cluster::{Cluster, Watch};

/// One primary of a cluster.
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

    /// Its name, as in [`L2::server_of`](crinkle_core::l2::L2::server_of).
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        server_name(&self.address)
    }

    pub(crate) fn into_address(self) -> Address {
        self.address
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.address.0, self.address.1)
    }

    /// Sends a command to this server, on the connection for the store's commands. Does not follow
    /// redirections.
    ///
    /// # Errors
    ///
    /// If the server refuses the command or is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer; the command may run.
    pub async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let mut watch = Watch { cluster: &self.cluster, answered: false };
        let answer = self.cluster.send(&self.address, cmd, false).await?;
        watch.answered = true;
        Ok(answer)
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Primary").field(&self.address).finish()
    }
}
