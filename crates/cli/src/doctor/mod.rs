//! Examines a server for present and future problems. Runs only on request, never within a cache
//! call.
//!
//! `facts` collects the answers of a server, and `server` judges them. `permissions` and `ledger`
//! examine what one cache needs. `report` holds the findings.

mod facts;
mod ledger;
mod permissions;
mod report;
mod server;

pub use report::{Finding, Report, Severity};

use std::time::Duration;

use crinkle_core::l2::L2Error;
use crinkle_redis_client::error::l2_error;
use crinkle_redis_client::{Member, RedisClient};
use futures_util::future::join_all;
use tokio::time::timeout;

use self::facts::ServerFacts;

/// Limit for one server of a cluster to give all its answers.
const NODE_LIMIT: Duration = Duration::from_secs(5);

/// An examination of a server, or of all servers of a cluster. It changes nothing there.
///
/// It covers the version and the role, memory and eviction, persistence, the output buffers of
/// subscribers, idle connections, and clocks: this host's, the server's and its replicas'. With a
/// [`prefix`](Self::prefix) it also covers the permissions of a user and the ledger. The report
/// names what the user may not ask; that is not an error, since managed services hide their
/// configuration.
///
/// ```no_run
/// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
/// use crinkle_cli::doctor::Doctor;
/// use crinkle_redis_client::RedisClient;
///
/// let client = RedisClient::connect("redis://localhost").await?;
/// let report = Doctor::new(&client).prefix("shop:").run().await?;
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

impl<'a> Doctor<'a> {
    /// A doctor for the server of this client, in a cluster for every server.
    pub fn new(client: &'a RedisClient) -> Self {
        Self { client, prefix: None, user: None }
    }

    /// Sets the cache's key prefix. The doctor then examines the ledger, and whether the user may
    /// run a cache's commands there.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Examines the permissions of this user instead of the client's own. Needs Redis 7.0 and the
    /// permission for `ACL DRYRUN`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Examines the server and returns the report.
    ///
    /// # Errors
    ///
    /// If the server is unreachable, or refuses the login.
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
            let examined =
                members.iter().map(async |Member { address, is_primary, client, .. }| {
                    let mut found = Report::default();
                    let part = if *is_primary { Part::Primary } else { Part::Replica };
                    let holds = home.as_ref() == Some(address);
                    let examined = self.examine(client, part, holds, &mut found);
                    match timeout(NODE_LIMIT, examined).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => unreachable(&error, &mut found),
                        Err(_) => unreachable(&"it does not answer in time", &mut found),
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

    /// Examines one server. `holds`: the ledger, if it exists, is on this server.
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

/// Role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The only server.
    Whole,
    /// A primary of a cluster.
    Primary,
    /// A replica in a cluster.
    Replica,
}

fn unreachable(why: &impl std::fmt::Display, report: &mut Report) {
    report.add(Severity::Problem, "node", [
        format!("it cannot be examined: {why}"),
        "the keys of a lost primary are in the nodes' L1 only, and a lost replica cannot replace its \
         primary"
            .to_owned(),
        "check the server, its log and the network, and that the user exists on all servers: users are \
         not replicated"
            .to_owned(),
    ]);
}
