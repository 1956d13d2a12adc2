//! Sentinels, which name the primary. `agree` decides what to do when they disagree.

mod agree;

use std::collections::HashMap;
use std::sync::Arc;

use crinkle_core::l2::BusId;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, RedisConnectionInfo, RedisResult, TlsMode};

use crate::credentials::Credentials;
use crate::settings::{bus_id, tcp_settings};

/// The connections to sentinels, by their addresses.
pub(crate) type Asked = Arc<Mutex<HashMap<String, MultiplexedConnection>>>;

/// Sentinels, and the settings for the servers that they name.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) addresses: Vec<ConnectionAddr>,
    pub(crate) asked_as: RedisConnectionInfo,
    pub(crate) primary: String,
    pub(crate) servers: RedisConnectionInfo,
    /// The connections to the single sentinels.
    pub(crate) asked: Asked,
    #[cfg(feature = "tls")]
    pub(crate) certificates: Option<redis::TlsCertificates>,
}

impl Sentinels {
    pub(crate) fn bus(&self) -> BusId {
        let mut addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.sort_unstable();
        let named = format!("{}@{}", self.primary, addresses.join(","));
        bus_id(&format!("sentinel:{named}"), self.servers.db())
    }

    /// Builds a client for servers of this kind; `credentials` replace the configured user.
    pub(crate) fn client(
        &self,
        credentials: Option<Credentials>,
        kind: SentinelServerType,
    ) -> RedisResult<SentinelClient> {
        let (addresses, servers) = (self.addresses.clone(), self.servers.clone());
        let servers = match credentials {
            Some(credentials) => credentials.into_settings(servers),
            None => servers,
        };
        let mut builder = SentinelClientBuilder::new(addresses, &self.primary, kind)?
            .set_client_to_redis_protocol(servers.protocol())
            .set_client_to_redis_db(servers.db())
            .set_client_to_redis_tcp_settings(tcp_settings())
            .set_client_to_sentinel_tcp_settings(tcp_settings())
            .set_client_to_sentinel_protocol(self.asked_as.protocol());
        if let Some(user) = servers.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = servers.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = self.asked_as.username() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = self.asked_as.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if self.addresses.iter().any(|at| matches!(at, ConnectionAddr::TcpTls { .. })) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
        }
        builder.build()
    }
}
