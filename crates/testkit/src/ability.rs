//! The features of the `redis-server` of this run. They are tested on a server, not inferred from
//! its version.

use std::io::Write as _;
use std::panic::Location;
use std::sync::OnceLock;

use redis::{Cmd, RedisResult, Value};

use crate::redis::RedisServer;

/// Features that some servers lack and some tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// TLS; a server can be built without it.
    Tls,
    /// `ACL DRYRUN`, since Redis 7.0.
    AclDryRun,
    /// A configurable port of the cluster bus, since Redis 7.0. Before, it is the command port plus
    /// 10,000.
    ClusterPort,
    /// `SET` with `NX` and `GET` together, since Redis 7.0.
    SetNxGet,
}

impl Ability {
    /// Returns whether the server has the feature. One test per process finds out.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn is_there(self) -> bool {
        let asked = match self {
            Self::Tls => &TLS,
            Self::AclDryRun => &ACL_DRY_RUN,
            Self::ClusterPort => &CLUSTER_PORT,
            Self::SetNxGet => &SET_NX_GET,
        };
        *asked.get_or_init(|| self.ask())
    }

    /// The same for a test that must return if the feature is missing. It then prints a line to
    /// standard error that begins with `not run: ` and names the caller; the test harness does not
    /// capture the line.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    #[track_caller]
    pub fn or_not_run(self) -> bool {
        if self.is_there() {
            return true;
        }
        print(&format!("not run: {} needs {}\n", Location::caller(), self.name()));
        false
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::AclDryRun => "ACL DRYRUN",
            Self::ClusterPort => "a port for the cluster bus",
            Self::SetNxGet => "SET NX GET",
        }
    }

    fn ask(self) -> bool {
        match self {
            Self::Tls => RedisServer::try_start_with(&["--tls-port", "1"])
                .map_or_else(|log| !NO_TLS.iter().any(|said| log.contains(said)), |_| true),
            Self::SetNxGet => asks::<Value>(&["SET", "key", "", "NX", "GET"]).is_ok(),
            Self::AclDryRun => asks::<Value>(&["ACL", "DRYRUN", "default", "PING"]).is_ok(),
            Self::ClusterPort => {
                let found: RedisResult<Vec<String>> = asks(&["CONFIG", "GET", "cluster-port"]);
                !found.expect("the server reports its settings").is_empty()
            }
        }
    }
}

/// The last log line of a server without TLS that is configured to use it: since Redis 7.2, and
/// before. A server with TLS misses a certificate instead. `CONFIG GET` knows the TLS settings in
/// either case.
const NO_TLS: [&str; 2] = ["Failed finding TLS support", "Bad directive"];

/// Prints that a test skipped a part on this server; [`Ability::or_not_run`] does so for a whole
/// test.
#[track_caller]
pub fn not_checked(what: &str) {
    print(&format!("not checked: {}: {what}\n", Location::caller()));
}

/// Writes to standard error directly: the test harness shows captured output only for failed tests.
fn print(line: &str) {
    // If standard error is closed, the line cannot be reported anywhere.
    drop(std::io::stderr().write_all(line.as_bytes()));
}

static TLS: OnceLock<bool> = OnceLock::new();
static ACL_DRY_RUN: OnceLock<bool> = OnceLock::new();
static CLUSTER_PORT: OnceLock<bool> = OnceLock::new();
static SET_NX_GET: OnceLock<bool> = OnceLock::new();

fn asks<T: redis::FromRedisValue>(words: &[&str]) -> RedisResult<T> {
    let server = RedisServer::start();
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let mut cmd = Cmd::new();
    for word in words {
        cmd.arg(*word);
    }
    cmd.query(&mut connection)
}
