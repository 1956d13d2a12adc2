//! The ledger: is it there, is it ours, and does the clock keep up with it?

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::protocol::ledger::MAX_DRIFT_US;

use super::{Report, Severity};
use crate::client::RedisClient;
use crate::view::LedgerView;

/// How far the numbers may run ahead of the clock before it is worth a word, in microseconds.
const SLIGHT_DRIFT_US: u64 = 1_000_000;

pub(super) async fn examine(client: &RedisClient, prefix: &str, report: &mut Report) {
    let ledger = match client.ledger(prefix).await {
        Ok(ledger) => ledger,
        // The permissions have been told.
        Err(error) if error.kind() == L2ErrorKind::Denied => return,
        // Another node of the cluster has it.
        Err(error) if error.to_string().contains("MOVED") => return,
        Err(error) => {
            report.add(
                Severity::Problem,
                "ledger",
                [
                    format!("the ledger cannot be read: {error}"),
                    "a cache has the same trouble, and runs on its L1 alone".to_owned(),
                    "look at what the server says, and run the doctor again".to_owned(),
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
            "if a cache should be using it, compare the prefix with its key_prefix and look at its \
             health()"
                .to_owned(),
        ]),
        LedgerView::Foreign(what) => report.add(Severity::Problem, "ledger", [
            format!("what is at {key} is no ledger, but {what}"),
            "another program writes under the prefix; the next node deletes it and begins a ledger"
                .to_owned(),
            "give each program a prefix, or a server, of its own".to_owned(),
        ]),
        LedgerView::OtherVersion(begins) => report.add(Severity::Problem, "ledger", [
            format!("the ledger at {key} is of another version of Crinkle ({begins:?})"),
            "each version begins a new epoch where it meets the other: while both run, everything \
             is loaded again with every poll"
                .to_owned(),
            "finish the roll-out, or give the new version another prefix".to_owned(),
        ]),
        LedgerView::Present(state) => ahead(state.frontier.saturating_sub(state.now_us), report),
    }
}

/// The ledger's numbers are never below the clock that issued them.
fn ahead(us: u64, report: &mut Report) {
    if us < SLIGHT_DRIFT_US {
        return;
    }
    let over = us > MAX_DRIFT_US;
    let severity = if over { Severity::Problem } else { Severity::Warning };
    let follows = if over {
        "that is beyond the 300 s that are allowed: the next call begins a new epoch, and every entry \
         is loaded again"
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
            "let NTP slew the clocks of all servers (chronyd, no steps), and look at `clock` above"
                .to_owned(),
        ],
    );
}
