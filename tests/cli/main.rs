//! The `crinkle` command against real servers, run as an operator runs it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

#[cfg(feature = "tls")]
#[path = "../secure/authority.rs"]
mod authority;
mod changes;
mod doctor;
mod doctor_cluster;
mod doctor_permissions;
mod keys;
#[expect(dead_code, reason = "the tests of the scripts need one more")]
mod liar;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod reading;
#[cfg(feature = "tls")]
mod tls;
mod usage;
mod watch;

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crinkle_backplane::RedisBackplane;
use crinkle_core::{Cache, EntryOptions, FailSafe, Receipt};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;
use serde_json::Value;
use tokio::time::Instant;

/// The limit of any run.
const DEADLINE: Duration = Duration::from_secs(60);

/// The result of a run.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The output with `--json`.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crinkle"));
    command.args(args).env_remove("CRINKLE_REDIS_URL").env_remove("CRINKLE_PREFIX");
    command.stdin(Stdio::null());
    command
}

fn crinkle<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    ran(&mut command(args))
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command on this server, for the cache named shop.
fn at(url: &str, args: &[&str]) -> Ran {
    crinkle([&["--url", url, "--prefix", "shop:"], args].concat())
}

fn raw(url: &str, cmd: &[&str]) -> redis::Value {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd(cmd[0]).arg(&cmd[1..]).query(&mut connection).unwrap()
}

/// Begins a ledger as a cache does.
fn plant_ledger(url: &str, ahead_s: i64) {
    let (now, _): (i64, i64) = redis::from_redis_value(raw(url, &["TIME"])).unwrap();
    let number = format!("{}000000", now + ahead_s);
    raw(url, &["ZADD", "shop:v1:L", "-1", "e2abcdefgh", &number, "f"]);
    raw(url, &["PEXPIRE", "shop:v1:L", "1000000000"]);
}

/// Returns the number that the ledger gave a removal.
fn number(receipt: Result<Receipt, crinkle_core::Error>) -> u64 {
    let barrier = receipt.unwrap().token().unwrap();
    u64::from_be_bytes(barrier.to_bytes()[8..].try_into().unwrap())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Starts a node of the cache.
async fn node(server: &RedisServer) -> Cache {
    node_over(RedisClient::connect(&server.url()).await.unwrap()).await
}

async fn node_over(client: RedisClient) -> Cache {
    let hour = Duration::from_secs(3600);
    let options = EntryOptions::new(hour).fail_safe(FailSafe::for_up_to(hour * 24));
    // The limit of a call on a busy machine.
    let limit = Duration::from_secs(5);
    let cache = Cache::builder("shop")
        .default_options(options.l2_soft_timeout(limit).l2_hard_timeout(limit))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client))
        .build()
        .unwrap();
    tokio::time::timeout(DEADLINE, cache.ready()).await.unwrap().unwrap();
    cache
}
