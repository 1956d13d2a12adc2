//! What is wrong with a server, or will be: asked for, never in the endpoint of the cache.

mod facts;
mod ledger;
mod permissions;
mod report;
mod server;

pub use report::{Finding, Report, Severity};

use std::time::Duration;

use crinkle_core::l2::L2Error;
use futures_util::future::join_all;
use tokio::time::timeout;

use self::facts::ServerFacts;
use crate::client::RedisClient;
use crate::error::l2_error;

/// How long one server of a cluster may take for all its answers.
const NODE_LIMIT: Duration = Duration::from_secs(5);

impl RedisClient {
    /// Examines this server, in a cluster every one of them, for what bites a cache: see [`Doctor`].
    pub fn doctor(&self) -> Doctor<'_> {
        Doctor { client: self, prefix: None, user: None }
    }
}

/// An examination of a server, or of all servers of a cluster. It changes nothing there.
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
        let mut report = Report::default();
        if self.client.is_cluster() {
            let members = self.client.members().await.map_err(|error| l2_error(&error))?;
            let ledger = self.prefix.as_ref().map(|prefix| format!("{prefix}v1:L"));
            let home = ledger.and_then(|ledger| self.client.primary_of(&ledger));
            let examined = members.iter().map(async |(address, part, client)| {
                let mut found = Report::default();
                let holds = home.as_ref() == Some(address);
                let examined = self.examine(client, *part, holds, &mut found);
                match timeout(NODE_LIMIT, examined).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => silent(&error, &mut found),
                    Err(_) => silent(&"it does not answer in time", &mut found),
                }
                found.at(&format!("{}:{}", address.0, address.1))
            });
            report.findings = join_all(examined).await.into_iter().flatten().collect();
        } else {
            self.examine(self.client, Part::Whole, true, &mut report).await?;
        }
        report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(report)
    }

    /// Examines one server; `holds`: the ledger, if there is one, is there.
    async fn examine(
        &self,
        client: &RedisClient,
        part: Part,
        holds: bool,
        report: &mut Report,
    ) -> Result<(), L2Error> {
        let facts = ServerFacts::gather(client).await?;
        server::examine(&facts, part, report);
        let Some(prefix) = &self.prefix else { return Ok(()) };
        let in_cluster = part != Part::Whole;
        permissions::examine(client, prefix, self.user.as_deref(), in_cluster, report).await?;
        if holds {
            ledger::examine(client, prefix, report).await;
        }
        Ok(())
    }
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All there is.
    Whole,
    /// One of the primaries of a cluster.
    Primary,
    /// One of its replicas.
    Replica,
}

fn silent(why: &impl std::fmt::Display, report: &mut Report) {
    report.add(Severity::Problem, "node", [
        format!("it cannot be examined: {why}"),
        "a primary that is gone leaves its keys to the nodes' L1, and a replica that is gone cannot take \
         its place"
            .to_owned(),
        "look at the server, its log and the network, and whether the user is the same on all servers: \
         users are not replicated"
            .to_owned(),
    ]);
}
