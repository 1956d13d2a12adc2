//! What the `redis-server` of this run can do. A server is asked; nothing is inferred from its version.

use std::io::Write as _;
use std::panic::Location;
use std::sync::OnceLock;

use redis::{Cmd, RedisResult, Value};

use crate::redis::RedisServer;

/// What some servers cannot do, and some tests cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// TLS; a server can be built without it.
    Tls,
    /// `ACL DRYRUN`, since Redis 7.0.
    AclDryRun,
    /// A port of one's choice for the bus of a cluster, since Redis 7.0; before, it is the port for commands
    /// plus 10,000.
    ClusterPort,
    /// `SET` with `NX` and `GET` together, since Redis 7.0.
    SetNxGet,
}

impl Ability {
    /// Whether the server can. It is asked once per process.
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

    /// The same for a test that has to return if it is not. The test is then a line on standard error that
    /// begins with `not run: ` and names the caller; the test harness does not capture it.
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
                !found.expect("the server tells its settings").is_empty()
            }
        }
    }
}

/// The last words of a server without TLS that is told to use it: since Redis 7.2, and before. One that has it
/// misses a certificate. `CONFIG GET` knows the settings of TLS in either case.
const NO_TLS: [&str; 2] = ["Failed finding TLS support", "Bad directive"];

/// Prints that a test has left out a part, on this server, as [`Ability::or_not_run`] does for a whole one.
#[track_caller]
pub fn not_checked(what: &str) {
    print(&format!("not checked: {}: {what}\n", Location::caller()));
}

/// Past the test harness, which would show it only of tests that fail.
fn print(line: &str) {
    // There is nobody to tell that standard error is closed.
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
