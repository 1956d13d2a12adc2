use std::fmt;
use std::sync::Arc;

use crinkle_core::BoxError;
use crinkle_core::l2::L2Error;
use futures_util::FutureExt;
use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult,
};

use crate::client::RedisClient;
use crate::cluster::Cluster;
use crate::connection::endpoint::{Endpoint, Target};
use crate::credentials::{AskCredentials, Credentials};
use crate::error::l2_error;
use crate::refusal;
use crate::sentinels::{Asked, Sentinels};
use crate::settings::{bus_id, tcp_settings};

/// Default name of the connections in `CLIENT LIST`.
const NAME: &str = "crinkle";

impl RedisClient {
    /// Creates a client for the server at this URL: `redis://user:password@host:port/db`,
    /// `rediss://` for TLS (feature `tls`), `redis+unix:///path?db=1&user=name&pass=word`. The
    /// client connects in the background, so the server may be down. The protocol is RESP3; for a
    /// proxy that knows only the older protocol, add `?protocol=resp2`.
    ///
    /// # Errors
    ///
    /// If the URL is invalid; never because of the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        Self::builder(url).connect().await
    }

    /// Starts a client for the server at this URL, with settings that a URL cannot express: TLS,
    /// the client's name, credentials that change.
    pub fn builder(url: impl Into<String>) -> RedisClientBuilder {
        RedisClientBuilder::server(url.into())
    }

    /// Creates a client for the primary that these sentinels (`redis://host:26379`) know by this
    /// name. The client asks the sentinels again when the connection is lost, or when the server
    /// reports that it is now a replica. It uses the default user, database 0 and RESP3; for other
    /// settings see [`sentinel_builder`](Self::sentinel_builder).
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
    /// use crinkle_redis_client::RedisClient;
    ///
    /// let sentinels = ["redis://one:26379", "redis://two:26379", "redis://three:26379"];
    /// let client = RedisClient::sentinel(sentinels, "mymaster").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, L2Error> {
        Self::sentinel_builder(urls, name).connect().await
    }

    /// Starts a client for the primary that these sentinels know by this name, with more settings.
    /// User and password in the first URL are for the sentinels. URLs that begin with `rediss://`
    /// mean that the servers use TLS as well.
    pub fn sentinel_builder(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> RedisClientBuilder {
        let urls = urls.into_iter().map(|url| url.as_ref().to_owned()).collect();
        RedisClientBuilder::sentinels(urls, name.to_owned())
    }

    /// Creates a client for the cluster that these servers belong to; one that answers is enough to
    /// find the others. All servers use the user, password and protocol of the first URL. Commands
    /// follow a moved slot; the client never repeats a command that may have run.
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
    /// use crinkle_redis_client::RedisClient;
    ///
    /// let client = RedisClient::cluster(["redis://one:6379", "redis://two:6379"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, L2Error> {
        Self::cluster_builder(urls).connect().await
    }

    /// Starts a client for the cluster that these servers belong to, with settings that URLs cannot
    /// express. A cluster has database 0 only.
    pub fn cluster_builder(urls: impl IntoIterator<Item = impl AsRef<str>>) -> RedisClientBuilder {
        RedisClientBuilder::cluster(urls.into_iter().map(|url| url.as_ref().to_owned()).collect())
    }
}

/// Connection settings that go beyond a URL. Created by [`RedisClient::builder`],
/// [`RedisClient::sentinel_builder`] or [`RedisClient::cluster_builder`].
///
/// ```no_run
/// use crinkle_redis_client::{Credentials, RedisClient};
///
/// # async fn read_secret() -> std::io::Result<String> { Ok(String::new()) }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = RedisClient::builder("redis://cache.internal:6379/2")
///     .client_name("shop-api")
///     .credentials(|| async { Ok(Credentials::new("shop", read_secret().await?)) })
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "it connects with `connect`"]
pub struct RedisClientBuilder {
    at: At,
    name: Option<String>,
    credentials: Option<AskCredentials>,
    user: Option<Credentials>,
    database: Option<i64>,
    replicas: Vec<String>,
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
}

enum At {
    Server(String),
    Sentinels(Vec<String>, String),
    Cluster(Vec<String>),
}

impl RedisClientBuilder {
    pub(crate) fn server(url: String) -> Self {
        Self::at(At::Server(url))
    }

    pub(crate) fn sentinels(urls: Vec<String>, name: String) -> Self {
        Self::at(At::Sentinels(urls, name))
    }

    pub(crate) fn cluster(urls: Vec<String>) -> Self {
        Self::at(At::Cluster(urls))
    }

    fn at(at: At) -> Self {
        Self {
            at,
            name: Some(NAME.to_owned()),
            credentials: None,
            user: None,
            database: None,
            replicas: Vec::new(),
            #[cfg(feature = "tls")]
            certificates: None,
        }
    }

    /// Sets the name of the connection for commands in `CLIENT LIST`; no spaces. An empty name
    /// leaves the connection without one. Default: `crinkle`. Without the right to `client|setname`
    /// the connection has no name.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into()).filter(|name| !name.is_empty());
        self
    }

    /// Sets the user on the server, instead of the one in its URL. Users in the URLs of sentinels
    /// are for the sentinels; for the server behind them, use this method.
    pub fn user(mut self, credentials: Credentials) -> Self {
        self.user = Some(credentials);
        self
    }

    /// Calls `ask` for the user and its password before each new connection, for passwords and
    /// tokens that change. An open connection stays: Redis does not close it when a password
    /// changes.
    ///
    /// `ask` may take three seconds. If it fails or takes longer, the client makes no connection,
    /// and the next command calls `ask` again. Callers get the message of its error, so the message
    /// must not contain the secret.
    pub fn credentials<F, A>(mut self, ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
    {
        self.credentials = Some(Arc::new(move || ask().boxed()));
        self
    }

    /// Sets the number of the database, instead of the one in the URL. Default: 0. Any other
    /// database needs the right to `select`, and the names of its channels contain its number.
    pub fn database(mut self, number: u32) -> Self {
        self.database = Some(number.into());
        self
    }

    /// Names the replicas of a server, or an address that leads to them, for
    /// `RedisL2::read_from_replicas`. Sentinels and clusters report their replicas by themselves.
    pub fn replicas(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.replicas = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the certificate authorities to trust, as PEM, *instead of* those of the operating
    /// system. The URL begins with `rediss://`. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates_mut().root_cert = Some(pem.into());
        self
    }

    /// Sets the certificate of this client (with its intermediate certificates) and its private
    /// key, as PEM, for servers with `tls-auth-clients`. The URL begins with `rediss://`. Needs the
    /// feature `tls`.
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates_mut().client_tls = Some(redis::ClientTlsConfig {
            client_cert: certificate.into(),
            client_key: key.into(),
        });
        self
    }

    #[cfg(feature = "tls")]
    fn certificates_mut(&mut self) -> &mut redis::TlsCertificates {
        let none = redis::TlsCertificates { client_tls: None, root_cert: None };
        self.certificates.get_or_insert(none)
    }

    /// Creates the client. It connects in the background; the server may be down.
    ///
    /// # Errors
    ///
    /// If a URL, a certificate or a key is invalid; never because of the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    #[expect(clippy::unused_async, reason = "needs a runtime: it connects in the background")]
    pub async fn connect(self) -> Result<RedisClient, L2Error> {
        Ok(self.client().map_err(|error| l2_error(&refusal::of_settings(error)))?.warmed())
    }

    fn client(self) -> RedisResult<RedisClient> {
        let (target, bus, database) = match &self.at {
            At::Server(url) => {
                let info = self.server_at(url)?;
                let (addr, database) = (info.addr().to_string(), info.redis_settings().db());
                (Target::Server(Client::open(info)?), bus_id(&addr, database), database)
            }
            At::Sentinels(urls, primary) => {
                let sentinels = self.sentinels_at(urls, primary)?;
                let (bus, database) = (sentinels.bus(), sentinels.servers.db());
                (Target::primary(sentinels)?, bus, database)
            }
            At::Cluster(urls) => {
                let seeds: Vec<_> =
                    urls.iter().map(|url| self.server_at(url)).collect::<RedisResult<_>>()?;
                let mut addresses: Vec<_> = seeds.iter().map(|at| at.addr().to_string()).collect();
                if addresses.is_empty() {
                    let nobody = "a cluster needs the URL of one of its servers";
                    return Err(RedisError::from((ErrorKind::InvalidClientConfig, nobody)));
                }
                if seeds.iter().any(|at| at.redis_settings().db() != 0) {
                    let other = "a cluster has database 0 only: leave the number out";
                    return Err(RedisError::from((ErrorKind::InvalidClientConfig, other)));
                }
                addresses.sort_unstable();
                let bus = bus_id(&format!("cluster:{}", addresses.join(",")), 0);
                let cluster = Cluster::new(seeds, self.name, self.credentials);
                return Ok(RedisClient::many(cluster, bus));
            }
        };
        let replicas = self.replicas.iter().map(|url| Client::open(self.server_at(url)?));
        let replicas = replicas.collect::<RedisResult<_>>()?;
        let endpoint =
            Endpoint { target, name: self.name, credentials: self.credentials, replicas };
        Ok(RedisClient::over(endpoint, bus, database))
    }

    fn server_at(&self, url: &str) -> RedisResult<ConnectionInfo> {
        let info = self.address(url)?;
        // RESP3 reports a lost connection at once, RESP2 only with the next command.
        let chosen = redis::parse_redis_url(url)
            .is_some_and(|url| url.query_pairs().any(|(name, _)| name == "protocol"));
        let protocol = info.redis_settings().protocol();
        let protocol = if chosen { protocol } else { ProtocolVersion::RESP3 };
        let settings = self.chosen(info.redis_settings().clone().set_protocol(protocol));
        Ok(info.set_redis_settings(settings))
    }

    fn sentinels_at(&self, urls: &[String], primary: &str) -> RedisResult<Sentinels> {
        let infos = urls.iter().map(|url| self.address(url)).collect::<RedisResult<Vec<_>>>()?;
        let servers = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let asked_as = infos.first().map(|first| first.redis_settings().clone());
        Ok(Sentinels {
            addresses: infos.iter().map(|info| info.addr().clone()).collect(),
            asked_as: asked_as.unwrap_or_default(),
            primary: primary.to_owned(),
            servers: self.chosen(servers),
            asked: Asked::default(),
            #[cfg(feature = "tls")]
            certificates: self.certificates.clone(),
        })
    }

    /// Applies the builder's user and database over those of the URL.
    fn chosen(&self, mut settings: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(user) = &self.user {
            settings = user.clone().into_settings(settings);
        }
        if let Some(number) = self.database {
            settings = settings.set_db(number);
        }
        // `CLIENT SETINFO` is not in the ACL rule: the server would refuse it and log the refusal.
        settings.set_skip_set_lib_name()
    }

    fn address(&self, url: &str) -> RedisResult<ConnectionInfo> {
        let info = url.into_connection_info().map_err(|error| refusal::of_url(error, url))?;
        let info = info.set_tcp_settings(tcp_settings());
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            refusal::check_authorities(certificates)?;
            let client = Client::build_with_tls(info, certificates.clone())?;
            return Ok(client.get_connection_info().clone());
        }
        Ok(info)
    }
}

impl fmt::Debug for RedisClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password.
        f.debug_struct("RedisClientBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
