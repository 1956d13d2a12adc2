//! What is wrong with a server, or will be: asked for, never in the way of the cache.

mod facts;
mod ledger;
mod permissions;
mod report;
mod server;

pub use report::{Finding, Report, Severity};

use crinkle_core::l2::L2Error;

use self::facts::Facts;
use crate::client::RedisClient;

impl RedisClient {
    /// Examines this server for what bites a cache: see [`Doctor`].
    pub fn doctor(&self) -> Doctor<'_> {
        Doctor { client: self, prefix: None, user: None }
    }
}

/// An examination of a server. It changes nothing there.
///
/// Looked at are: the version and the role, memory and eviction, persistence, the output buffers of
/// subscribers, idle connections, clocks (this host's, the server's, its replicas'), and with a
/// [`prefix`](Self::prefix) the permissions of a user and the ledger. What the user may not ask is named
/// in the report and is no error: managed services hide their configuration.
///
/// ```no_run
/// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
/// use crinkle_l2_redis::RedisClient;
///
/// let client = RedisClient::connect("redis://localhost").await?;
/// let report = client.doctor().prefix("shop:").run().await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a doctor does nothing until `run`"]
pub struct Doctor<'a> {
    client: &'a RedisClient,
    prefix: Option<String>,
    user: Option<String>,
}

impl Doctor<'_> {
    /// The key prefix of the cache: its ledger is examined, and whether the user may do what a cache does
    /// there.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Examines the permissions of this user instead of one's own, which takes Redis 7.0 and the permission
    /// for `ACL DRYRUN`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Asks the server and reports.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or does not let this user in.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn run(self) -> Result<Report, L2Error> {
        let facts = Facts::gather(self.client).await?;
        let mut report = Report::default();
        server::examine(&facts, &mut report);
        if let Some(prefix) = &self.prefix {
            permissions::examine(self.client, prefix, self.user.as_deref(), &mut report).await?;
            ledger::examine(self.client, prefix, &mut report).await;
        }
        report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(report)
    }
}
