//! The configurations of the ledger model.

use crinkle_core::protocol::ledger::{Strength, Target};

use super::ledger::{Ledger, OTHER, SHARER, Sabotage, TAG};
use super::{Expect, Job, Report, explore};

/// Runs the configurations of this model that the job selects.
pub fn run(job: &Job, judge: &mut dyn FnMut(Report)) {
    let all = designs(job.deep)
        .into_iter()
        .map(|(name, model)| (format!("ledger {name}"), model, Expect::Holds))
        .chain(sabotaged().into_iter().map(|(what, model)| {
            let model = Ledger { sabotage: what, ..model };
            (format!("ledger sabotage: {what:?}"), model, Expect::Caught)
        }));
    for (name, model, expect) in all {
        if name.contains(&job.filter) {
            judge(explore(job, name, model, expect));
        }
    }
}

const HARD: (Target, Strength) = (TAG, Strength::Hard);
const SOFT: (Target, Strength) = (TAG, Strength::Soft);
const NOISE: (Target, Strength) = (OTHER, Strength::Hard);
const TWO: &[(Target, Strength)] = &[HARD, HARD];
const TAGS: &[(Target, Strength)] = &[NOISE, HARD];
/// Two tags in one register; with a cap of one, the second folds the first.
const FOLDED: &[(Target, Strength)] = &[HARD, (SHARER, Strength::Soft)];
const CLEAR: (Target, Strength) = (Target::Everything, Strength::Hard);

fn designs(deep: bool) -> Vec<(&'static str, Ledger)> {
    let both = Ledger::base(&[HARD]);
    let issuer = Ledger { loaders: [true, false], ..both };
    let peer = Ledger { loaders: [false, true], ..both };
    let (two, tags) = (TWO, TAGS);
    let mut all = vec![
        (
            "A two removals, a lost message, joiners",
            Ledger { script: two, drops: 1, joins: true, ..peer },
        ),
        (
            "B two tags, a lost message, reordering",
            Ledger { script: tags, drops: 1, reorder: true, ..peer },
        ),
        ("C a removal, a flush, joiners", Ledger { flushes: 1, joins: true, ..both }),
        ("D two removals, a flush", Ledger { script: two, flushes: 1, ..peer }),
        ("E a removal, a failover", Ledger { failovers: 1, ..peer }),
        (
            "F two tags, a failover, a lost message, replicas only",
            Ledger {
                script: tags,
                failovers: 1,
                drops: 1,
                max_nonces: 4,
                loaders: [false, false],
                ..both
            },
        ),
        (
            "G a removal, a failover, clock behind",
            Ledger { failovers: 1, clock_ahead: false, ..peer },
        ),
        (
            "H two removals, reordering, joiners",
            Ledger { script: two, reorder: true, joins: true, ..peer },
        ),
        ("P a lost reply, slow SYNC", Ledger { drops: 1, slow_sync: true, ..issuer }),
        (
            "Q soft and hard, a lost reply, reordering",
            Ledger { script: &[SOFT, HARD], drops: 1, reorder: true, ..issuer },
        ),
        (
            "R two tags, slow SYNC, pages of one",
            Ledger { script: tags, slow_sync: true, page: 1, ..issuer },
        ),
        ("S a removal, a flush, slow SYNC", Ledger { flushes: 1, slow_sync: true, ..peer }),
        (
            "T a removal, a failover, slow SYNC, replicas only",
            Ledger { failovers: 1, slow_sync: true, loaders: [false, false], ..both },
        ),
    ];
    all.extend(folding(both, issuer, peer));
    if deep {
        all.extend(large(both, issuer, peer));
    }
    all
}

fn folding(both: Ledger, issuer: Ledger, peer: Ledger) -> Vec<(&'static str, Ledger)> {
    vec![
        ("I two folds, a lost message", Ledger { script: FOLDED, cap: 0, drops: 1, ..peer }),
        (
            "J a fold, slow SYNC, pages of one",
            Ledger { script: FOLDED, cap: 1, slow_sync: true, page: 1, ..issuer },
        ),
        (
            "L a fold, a failover, replicas only",
            Ledger { cap: 0, failovers: 1, loaders: [false, false], ..both },
        ),
    ]
}

fn large(both: Ledger, issuer: Ledger, peer: Ledger) -> Vec<(&'static str, Ledger)> {
    let (two, tags) = (TWO, TAGS);
    vec![
        ("A+ both load", Ledger { script: two, drops: 1, joins: true, ..both }),
        ("T+ one node loads", Ledger { failovers: 1, slow_sync: true, ..peer }),
        ("F+ two tags, a failover", Ledger { script: tags, failovers: 1, ..peer }),
        ("D+ both load", Ledger { script: two, flushes: 1, ..both }),
        ("E= both load", Ledger { failovers: 1, ..both }),
        ("E+ two removals, a failover", Ledger { script: two, failovers: 1, ..peer }),
        (
            "G+ two removals, a failover, clock behind",
            Ledger { script: two, failovers: 1, clock_ahead: false, ..peer },
        ),
        (
            "U two removals, a lost reply, slow SYNC, pages of one",
            Ledger { script: &[HARD, NOISE], drops: 1, slow_sync: true, page: 1, ..issuer },
        ),
        (
            "I+ three folds into two registers, a lost message",
            Ledger { script: &[HARD, NOISE, (SHARER, Strength::Soft)], cap: 1, drops: 1, ..peer },
        ),
        ("L+ a fold, a failover", Ledger { cap: 0, failovers: 1, ..peer }),
        // Replicas only: nodes that merely received a removal forget it if a failover takes its
        // epoch back. The issuer retries it.
        (
            "V a removal, a flush and a failover, replicas only",
            Ledger { flushes: 1, failovers: 1, loaders: [false, false], ..both },
        ),
        (
            "W two removals, a failover, slow SYNC, replicas only",
            Ledger { script: two, failovers: 1, slow_sync: true, loaders: [false, false], ..both },
        ),
        (
            "X clear and tag, a failover, clock behind",
            Ledger { script: &[CLEAR, HARD], failovers: 1, clock_ahead: false, ..issuer },
        ),
        (
            "Y a removal, a flush, slow SYNC, a loss",
            Ledger { flushes: 1, slow_sync: true, drops: 1, ..both },
        ),
        (
            "Z two tags, slow SYNC, reordering, two losses",
            Ledger { script: tags, slow_sync: true, reorder: true, drops: 2, page: 1, ..peer },
        ),
        ("M three removals, two losses, a failover, clock behind, replicas only", resent()),
        (
            "N two tags, a loss, two failovers, clock behind, replicas only",
            Ledger {
                script: tags,
                drops: 1,
                failovers: 2,
                clock_ahead: false,
                max_nonces: 4,
                loaders: [false, false],
                ..both
            },
        ),
    ]
}

/// A failover loses two removals, one of them without a reply. A third removal follows, then the
/// one without a reply is sent again.
fn resent() -> Ledger {
    Ledger {
        script: &[HARD, NOISE, NOISE],
        drops: 2,
        failovers: 1,
        clock_ahead: false,
        max_nonces: 4,
        loaders: [false, false],
        ..Ledger::base(&[HARD])
    }
}

fn sabotaged() -> Vec<(Sabotage, Ledger)> {
    let one = Ledger::base(&[HARD]);
    let two = Ledger::base(&[HARD, HARD]);
    let tags = Ledger::base(&[NOISE, HARD]);
    vec![
        (Sabotage::StampAfter, one),
        (Sabotage::UncheckedJoin, Ledger { joins: true, ..one }),
        (Sabotage::NoEpoch, Ledger { flushes: 1, ..one }),
        (Sabotage::LastWriteWins, Ledger { reorder: true, ..two }),
        (Sabotage::IgnoreGap, Ledger { drops: 1, ..tags }),
        (Sabotage::NewestAsPrev, Ledger { drops: 1, ..Ledger::base(&[HARD, NOISE, NOISE]) }),
        (Sabotage::NoLogMatching, Ledger { failovers: 1, ..two }),
        (Sabotage::NoPending, one),
        (Sabotage::OriginAfter, one),
        (Sabotage::NoReissue, Ledger { failovers: 1, ..two }),
        (Sabotage::IgnoreSuspect, Ledger { flushes: 1, ..one }),
        (Sabotage::SoftForHard, one),
        (Sabotage::NoFold, Ledger { cap: 0, drops: 1, ..one }),
        (Sabotage::NonceSentTwice, resent()),
    ]
}
