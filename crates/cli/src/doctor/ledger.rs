//! Examines the ledger: whether it exists, has this version, and agrees with the clock.

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::protocol::ledger::MAX_DRIFT_US;
use crinkle_l2_redis::LedgerView;
use crinkle_redis_client::RedisClient;

use super::{Report, Severity};

/// How far the numbers may be ahead of the clock before the doctor reports it, in microseconds.
const SLIGHT_DRIFT_US: u64 = 1_000_000;

pub(super) async fn examine(client: &RedisClient, prefix: &str, report: &mut Report) {
    let ledger = match LedgerView::read(client, prefix).await {
        Ok(ledger) => ledger,
        // The permissions check has reported this.
        Err(error) if error.kind() == L2ErrorKind::Denied => return,
        // Another node of the cluster holds the ledger.
        Err(error) if error.to_string().contains("MOVED") => return,
        Err(error) => {
            report.add(
                Severity::Problem,
                "ledger",
                [
                    format!("the ledger cannot be read: {error}"),
                    "a cache fails in the same way, and runs on its L1 alone".to_owned(),
                    "fix what the error says, and run the doctor again".to_owned(),
                ],
            );
            return;
        }
    };
    let key = format!("{prefix}v1:L");
    match ledger {
        LedgerView::Absent => report.add(Severity::Note, "ledger", [
            format!("there is no ledger at {key}"),
            "no cache uses this prefix now, or the ledger was evicted or flushed; the next node \
             begins a new one, under which nothing older counts"
                .to_owned(),
            "if a cache should be using it, compare the prefix with its key_prefix and check its \
             health()"
                .to_owned(),
        ]),
        LedgerView::Foreign(what) => report.add(Severity::Problem, "ledger", [
            format!("the key {key} is not a ledger, but {what}"),
            "another program writes under the prefix; the next node deletes it and begins a ledger"
                .to_owned(),
            "give each program a prefix, or a server, of its own".to_owned(),
        ]),
        LedgerView::OtherVersion(begins) => report.add(Severity::Problem, "ledger", [
            format!("the ledger at {key} is of another version of Crinkle ({begins:?})"),
            "each version replaces the ledger of the other and begins a new epoch: while both run, every \
             poll makes the nodes load everything again"
                .to_owned(),
            "finish the roll-out, or give the new version another prefix".to_owned(),
        ]),
        LedgerView::Present(state) => ahead(state.frontier.saturating_sub(state.now_us), report),
        // Each kind of this version is above.
        _ => {}
    }
}

/// Reports a ledger ahead of the clock. Its numbers are never below the clock that issued them.
fn ahead(us: u64, report: &mut Report) {
    if us < SLIGHT_DRIFT_US {
        return;
    }
    let over = us > MAX_DRIFT_US;
    let severity = if over { Severity::Problem } else { Severity::Warning };
    let follows = if over {
        "the limit is 300 s: the next call begins a new epoch, and every entry is loaded again"
    } else {
        "the server's clock went back, or a server with a slower clock was promoted; beyond 300 s a \
         new epoch would begin"
    };
    report.add(
        severity,
        "ledger_clock",
        [
            format!("the ledger is {} s ahead of the server's clock", us / 1_000_000),
            follows.to_owned(),
            "let NTP slew the clocks of all servers (chronyd, no steps), and see the finding `clock`"
                .to_owned(),
        ],
    );
}
