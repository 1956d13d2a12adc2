//! The writes of the last seconds, compared with L2 once another primary answers.

use std::time::Duration;

use super::Queued;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::protocol::Version;
use crate::protocol::commits::{self, Commit, Commits};
use crate::protocol::ledger::Strength;
use crate::sync::Mutex;

/// How far back a failover may reach: the writes of so long before the old primary was last asked.
const REACH: Duration = Duration::from_secs(10);

/// How many writes are remembered; of more, the newest.
const MOST: usize = 65_536;

/// How many polls compare: a reply of the old primary may be read after the new one has answered.
const ROUNDS: u8 = 2;

/// How many records are compared in one round trip.
const PAGE: usize = 256;

/// What this node wrote lately, and to whom.
#[derive(Debug)]
pub(crate) struct Lately(Mutex<State>);

#[derive(Debug)]
struct State {
    commits: Commits,
    /// The history of writes that the store was in, if it tells.
    lineage: Option<u64>,
    /// How often everything is still to be compared.
    rounds: u8,
}

/// A key and what this node did to it.
type Deeds = (Box<str>, Vec<Commit>);

impl Lately {
    pub(super) fn new() -> Self {
        let state = State { commits: Commits::new(MOST), lineage: None, rounds: 0 };
        Self(Mutex::new(state))
    }

    /// L2 has acknowledged a write.
    pub(crate) fn note(&self, key: &str, version: Version, strength: Strength, now: Moment) {
        self.0.lock().commits.note(key, Commit { version, strength }, now.as_nanos());
    }

    /// L2 has lost something, so it may have lost more.
    pub(crate) fn suspect(&self) {
        self.0.lock().rounds = ROUNDS;
    }

    /// Whether it matters who answers.
    fn wants_lineage(&self) -> bool {
        let state = self.0.lock();
        state.lineage.is_none() || !state.commits.is_empty()
    }

    /// Everything to compare; nothing while L2 is the one it was.
    fn take(&self, lineage: Option<u64>, now: Moment) -> Vec<Deeds> {
        let mut state = self.0.lock();
        let known = state.lineage;
        state.lineage = lineage.or(known);
        let another = known.is_some() && state.lineage != known;
        if another {
            state.rounds = ROUNDS;
        }
        if state.rounds > 0 {
            state.rounds -= 1;
            return state.commits.by_key().into_iter().collect();
        }
        state.commits.forget(now.as_nanos().saturating_sub(crate::clock::nanos(REACH)));
        Vec::new()
    }

    /// Whether nothing was written here since.
    fn is_newest(&self, (key, commits): &Deeds) -> bool {
        self.0.lock().commits.newest(key) == commits.last().copied()
    }
}

/// Compares what this node wrote lately with what L2 holds, if a failover may have taken it back, and
/// queues an invalidation of what came back. `asked` is when the `SYNC` was sent that L2 has answered.
pub(crate) async fn reassert<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment) {
    if let Err(error) = compare(inner, l2, asked).await {
        tracing::debug!(%error, "L2 could not be asked whether it still holds what was written");
        inner.recovery.lately.suspect();
    }
}

async fn compare<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    let (lately, limit) = (&inner.recovery.lately, inner.l2_limit());
    if !l2.holds_records() || !lately.wants_lineage() {
        return Ok(());
    }
    // Without an answer nothing is forgotten, and the next poll asks again.
    let Ok(lineage) = l2.lineage(limit).await else { return Ok(()) };
    for page in lately.take(lineage, asked).chunks(PAGE) {
        let heads = l2.read_heads(page.iter().map(|(key, _)| &**key), limit).await?;
        for (deeds, head) in page.iter().zip(heads) {
            let (key, commits) = deeds;
            let Some(strength) = commits::reassert(commits, head) else { continue };
            if lately.is_newest(deeds) {
                inner.counters.reasserted.add();
                let version = inner.entropy.version();
                inner.queue(key, Queued { strength, version, not_before: asked });
            }
        }
    }
    Ok(())
}
