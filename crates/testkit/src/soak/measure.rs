//! Measures this process and a server.

use std::fs;

use redis::FromRedisValue;

use super::Sample;

/// Samples this process; the values are zero if there is no `/proc`.
pub(super) fn process(entries: u64, calls: u64) -> Sample {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Sample {
        rss_kib: rss_kib(),
        tasks: count(tasks),
        descriptors: count(descriptors),
        entries: count(usize::try_from(entries).unwrap_or(usize::MAX)),
        calls: count(usize::try_from(calls).unwrap_or(usize::MAX)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are small")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

/// The resident memory of this process, in KiB.
pub(super) fn rss_kib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The processor time of this process, in seconds; a tick is a hundredth of a second.
pub(super) fn processor_secs() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|ticks| ticks.parse::<f64>().ok());
    (ticks().unwrap_or_default() + ticks().unwrap_or_default()) / 100.0
}

/// The number of keys on a server; `None` if it does not answer.
pub(super) async fn keys(url: &str) -> Option<f64> {
    ask::<usize>(url, &["DBSIZE"]).await.map(count)
}

/// Kills the connections of this kind; does nothing if the server does not answer.
pub(super) async fn kill_connections(url: &str, kind: &str) {
    let words = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
    let _: Option<usize> = ask(url, &words).await;
}

/// A field of `INFO`.
pub(super) async fn info(url: &str, field: &str) -> Option<f64> {
    let all: String = ask(url, &["INFO"]).await?;
    all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
}

async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> Option<T> {
    let client = redis::Client::open(url).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
}
