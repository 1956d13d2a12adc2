//! Judges the answers to INFO, CONFIG and TIME. One function per problem.

use super::facts::{Ahead, ServerFacts};
use super::report::Severity::{Note, Problem, Warning};
use super::{Part, Report, Severity};

const MIB: u64 = 1 << 20;

/// Below this, the server disconnects a subscriber that pauses for a moment. A message about a key
/// takes about 200 bytes in the buffer, so 8 MiB hold 40,000 of them.
const SMALL_HARD_LIMIT: u64 = 8 * MIB;
const SMALL_SOFT_LIMIT: u64 = MIB;

/// Clocks of machines with NTP differ by far less.
const CLOCK_MS: i64 = 1_000;

/// How far a ledger's numbers may be ahead of the clock; see `crinkle_core::protocol::ledger`.
const DRIFT_MS: i64 = 300_000;

/// Shortest idle timeout that is not reported: by default the poll uses a connection once a second.
const SHORT_TIMEOUT_S: u64 = 10;

pub(super) fn examine(facts: &ServerFacts, part: Part, report: &mut Report) {
    unknowns(facts, report);
    let of_part: &[fn(&ServerFacts, &mut Report)] = match part {
        Part::Whole => &[role, cluster, persistence],
        Part::Primary => &[followed, persistence],
        Part::Replica => &[following],
    };
    of_part.iter().for_each(|check| check(facts, report));
    for check in [version, memory, eviction, buffers, refused_writes, connections, clock, replicas]
    {
        check(facts, report);
    }
}

fn unknowns(facts: &ServerFacts, report: &mut Report) {
    let missing = |what: &str, unseen: &str| {
        [
            format!("this user may not run {what}, or the service does not offer it"),
            format!("not examined: {unseen}"),
            "run the doctor as an administrator with --user for the cache's own user; for a managed \
             service, check its parameter group"
                .to_owned(),
        ]
    };
    if facts.info.is_none() {
        let unseen = "version, role, memory, eviction, persistence, replicas";
        report.add(Note, "info", missing("INFO", unseen));
    }
    if facts.config.is_empty() {
        let unseen = "client-output-buffer-limit, save, timeout, tcp-keepalive";
        report.add(Note, "config", missing("CONFIG GET", unseen));
    }
}

fn version(facts: &ServerFacts, report: &mut Report) {
    let Some(version) = facts.info::<String>("redis_version") else { return };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if number < (6, 2) {
        report.add(
            Problem,
            "version",
            [
                format!("the server is version {version}"),
                "the ledger needs ZMSCORE and ZADD GT, added in 6.2: removals by tag fail".into(),
                "upgrade to Redis 7.0 or newer (6.2 at least)".to_owned(),
            ],
        );
    } else if number < (7, 0) {
        report.add(Note, "version", [
            format!("the server is version {version}"),
            "SET NX GET was added in 7.0; on older servers, reads that may load run as scripts, which cost \
             the server more than twice as much"
                .to_owned(),
            "upgrade to Redis 7.0 or newer when convenient".to_owned(),
        ]);
    }
}

fn role(facts: &ServerFacts, report: &mut Report) {
    if facts.info::<String>("role").as_deref() != Some("slave") {
        return;
    }
    let at = |name: &str| facts.info::<String>(name).unwrap_or_default();
    report.add(Problem, "role", [
        "the server is a replica".to_owned(),
        "it refuses writes (READONLY), so caches run on their L1 alone and their invalidations wait"
            .to_owned(),
        format!(
            "connect to its primary, {}:{}, or through sentinels, which follow it: \
             RedisClient::sentinel",
            at("master_host"),
            at("master_port")
        ),
    ]);
}

fn cluster(facts: &ServerFacts, report: &mut Report) {
    if facts.info::<u64>("cluster_enabled") == Some(1) {
        report.add(
            Note,
            "cluster",
            [
                "the server is one node of a cluster",
                "the doctor examined only this node",
                "grant the user `+cluster|slots`, so that the doctor finds the others; or run it for every \
                 node",
            ],
        );
    }
}

/// Checks that a primary of a cluster has replicas.
fn followed(facts: &ServerFacts, report: &mut Report) {
    if facts.info::<u64>("connected_slaves") == Some(0) {
        report.add(
            Warning,
            "replicas",
            [
                "no replica copies this primary",
                "if it fails, no server replaces it: its keys have no L2 until it is back",
                "CLUSTER REPLICATE on a server that holds no slots, or bring the replica back",
            ],
        );
    }
}

/// Checks that a replica in a cluster reaches its primary.
fn following(facts: &ServerFacts, report: &mut Report) {
    if facts.info::<String>("master_link_status").is_some_and(|status| status != "up") {
        report.add(Warning, "replicas", [
            "the replica has no connection to its primary",
            "if the primary fails, its latest writes are lost, or the replica does not replace it",
            "check the logs of both; `masteruser` and `masterauth` must be right on every server",
        ]);
    }
}

fn memory(facts: &ServerFacts, report: &mut Report) {
    let Some(most) = facts.setting::<u64>("maxmemory") else { return };
    if most == 0 {
        let host = facts.info::<u64>("total_system_memory").unwrap_or(0);
        let limit =
            if host == 0 { "<bytes>".to_owned() } else { format!("{}mb", host / MIB / 4 * 3) };
        report.add(Warning, "maxmemory", [
            "maxmemory is not set".to_owned(),
            "if the server outgrows its host, the kernel kills it and all data is lost at once"
                .to_owned(),
            format!(
                "CONFIG SET maxmemory {limit}  (three quarters of the host's memory; leave room for \
                 forks and output buffers)"
            ),
        ]);
        return;
    }
    let used = facts.info::<u64>("used_memory").unwrap_or(0);
    if used / 9 < most / 10 {
        return;
    }
    let evicts = policy(facts).is_some_and(|policy| policy != "noeviction");
    let (severity, follows) = if evicts {
        (Warning, "the server evicts records that the caches still use")
    } else {
        (
            Problem,
            "a full server refuses fills and sets (OOM); removals still work, loads stay in L1",
        )
    };
    report.add(
        severity,
        "memory_full",
        [
            format!("{} of {} MiB are used", used / MIB, most / MIB),
            follows.to_owned(),
            "CONFIG SET maxmemory higher, shorten TTLs, or enable compression for big values"
                .to_owned(),
        ],
    );
}

fn policy(facts: &ServerFacts) -> Option<String> {
    facts.setting("maxmemory-policy")
}

/// The ledger has a TTL, like every key of a cache, so every policy can evict it. Every node uses
/// it once a second, and its TTL is twice that of anything it can hide.
fn eviction(facts: &ServerFacts, report: &mut Report) {
    let Some(policy) = policy(facts) else { return };
    if ["noeviction", "volatile-ttl"].contains(&&*policy) {
        return;
    }
    let gone = "everything in the cache is loaded again then, on all nodes at once";
    let (severity, follows) = if policy.ends_with("-random") {
        (Problem, format!("it evicts the ledger like any other key, sooner or later; {gone}"))
    } else {
        let spared = "the ledger is spared while nodes poll it, and a candidate when they pause";
        (Warning, format!("{spared}; {gone}"))
    };
    let evicted = facts.info::<u64>("evicted_keys").unwrap_or(0);
    report.add(severity, "eviction", [
        format!("maxmemory-policy is {policy} ({evicted} keys evicted since the start)"),
        follows,
        "CONFIG SET maxmemory-policy volatile-ttl  (the ledger outlives all records, so it goes last; \
         keys without a TTL are never evicted), or noeviction with an alert on memory"
            .to_owned(),
    ]);
}

fn buffers(facts: &ServerFacts, report: &mut Report) {
    let Some(limits) = facts.config.get("client-output-buffer-limit") else { return };
    let mut words = limits.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(hard), Some(soft)) = (number(), number()) else { return };
    let small = |limit: u64, least: u64| limit != 0 && limit < least;
    let follows = if small(hard, SMALL_HARD_LIMIT) || small(soft, SMALL_SOFT_LIMIT) {
        "the server disconnects a node that pauses for a moment under load, and the node must verify all \
         its entries with L2"
    } else if hard == 0 && soft == 0 {
        "messages for a node that hangs fill the server's memory without limit"
    } else {
        return;
    };
    report.add(
        Warning,
        "output_buffer",
        [
            format!("client-output-buffer-limit of pubsub is {hard} bytes hard, {soft} soft"),
            follows.to_owned(),
            "CONFIG SET client-output-buffer-limit \"pubsub 33554432 8388608 60\"".to_owned(),
        ],
    );
}

fn persistence(facts: &ServerFacts, report: &mut Report) {
    let (Some(save), Some(aof)) = (facts.config.get("save"), facts.info::<u64>("aof_enabled"))
    else {
        return;
    };
    if !save.is_empty() || aof == 1 {
        return;
    }
    let copied = facts.info::<u64>("connected_slaves").unwrap_or(0) > 0;
    if copied || facts.info::<u64>("cluster_enabled") == Some(1) {
        report.add(Problem, "persistence", [
            "nothing is kept on disk, and replicas copy this server",
            "if it restarts before the others notice, it is empty and still the primary, and the \
             replicas empty themselves, too: the ledger and all records are gone",
            "CONFIG SET appendonly yes (appendfsync everysec), or make sure that nothing restarts a \
             primary automatically",
        ]);
    } else {
        report.add(Note, "persistence", [
            "nothing is kept on disk",
            "after a restart the cache is empty and its ledger new: safe, and every entry is loaded \
             again",
            "CONFIG SET appendonly yes, if the source cannot handle that load",
        ]);
    }
}

fn refused_writes(facts: &ServerFacts, report: &mut Report) {
    let failed = |line: &str| facts.info::<String>(line).as_deref() == Some("err");
    let stops = facts.config.get("stop-writes-on-bgsave-error").is_some_and(|said| said == "yes");
    let saves = facts.config.get("save").is_some_and(|save| !save.is_empty());
    let snapshot = failed("rdb_last_bgsave_status") && stops && saves;
    if snapshot || failed("aof_last_write_status") {
        let what =
            if snapshot { "the last snapshot" } else { "the last write of the append-only file" };
        report.add(Problem, "refused_writes", [
            format!("{what} failed"),
            "the server refuses every write (MISCONF) until it works again: caches run on their L1 \
             alone, and their invalidations wait"
                .to_owned(),
            "check the server's log for a full or unwritable disk, then BGSAVE; to accept writes at \
             once: CONFIG SET stop-writes-on-bgsave-error no"
                .to_owned(),
        ]);
    }
}

fn connections(facts: &ServerFacts, report: &mut Report) {
    let idle = facts.setting::<u64>("timeout").unwrap_or(0);
    if (1..SHORT_TIMEOUT_S).contains(&idle) {
        report.add(
            Warning,
            "timeout",
            [
                format!("the server closes connections that idle for {idle} s"),
                "a node with a slower poll reconnects for every command".to_owned(),
                "CONFIG SET timeout 0, or 300".to_owned(),
            ],
        );
    }
    if facts.setting::<u64>("tcp-keepalive") == Some(0) {
        report.add(
            Warning,
            "keepalive",
            [
                "tcp-keepalive is off",
                "the subscription of a vanished machine stays, and its messages fill the server's memory",
                "CONFIG SET tcp-keepalive 60",
            ],
        );
    }
}

fn clock(facts: &ServerFacts, report: &mut Report) {
    let Some(severity) = facts.ahead.and_then(differs) else { return };
    let ms = facts.ahead.map_or(0, |ahead| ahead.ms);
    report.add(severity, "clock", [
        format!("the server's clock is {} of this host's", offset(ms)),
        "a cache never compares the two, so it serves nothing wrongly; but one of them is wrong, and if \
         the server's clock is set back by more than 300 s, a new ledger begins and every entry is \
         loaded again"
            .to_owned(),
        "let NTP slew both clocks (chronyd, no steps)".to_owned(),
    ]);
}

fn replicas(facts: &ServerFacts, report: &mut Report) {
    for (at, ahead) in &facts.replicas {
        let Some(ahead) = ahead else {
            report.add(
                Note,
                "replica_clock",
                [
                    format!("the replica at {at} is not reachable from here"),
                    "its clock was not examined".to_owned(),
                    "run the doctor for it, too".to_owned(),
                ],
            );
            continue;
        };
        let Some(severity) = differs(*ahead) else { continue };
        report.add(severity, "replica_clock", [
            format!("the clock of the replica at {at} is {} of the primary's", offset(ahead.ms)),
            "after a promotion the ledger's numbers are that far ahead of the clock, or they jump; if the \
             clock is more than 300 s behind, a new ledger begins and every entry is loaded again"
                .to_owned(),
            "let NTP slew the clocks of all servers (chronyd, no steps)".to_owned(),
        ]);
    }
}

/// Severity of a clock difference, unless the round trip explains it.
fn differs(ahead: Ahead) -> Option<Severity> {
    match ahead.ms.saturating_abs() - ahead.give_or_take {
        ..CLOCK_MS => None,
        CLOCK_MS..DRIFT_MS => Some(Warning),
        _ => Some(Problem),
    }
}

fn offset(ms: i64) -> String {
    let side = if ms < 0 { "behind" } else { "ahead" };
    format!("{:.1} s {side}", ms.saturating_abs() as f64 / 1000.0)
}
