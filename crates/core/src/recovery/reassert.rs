//! The writes of the last seconds, compared with L2 once another primary answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

/// How often everything is compared: a reply of the old primary may be read after the new one has answered.
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
    /// How often everything is still to be compared, what is being compared aside.
    rounds: u8,
    /// What is still to be compared of this round.
    todo: Vec<Deeds>,
}

/// A key and what this node did to it.
type Deeds = (Arc<str>, Vec<Commit>);

impl State {
    fn suspect(&mut self) {
        self.rounds = ROUNDS;
        self.todo.clear();
    }
}

impl Lately {
    pub(super) fn new() -> Self {
        let commits = Commits::new(MOST);
        Self(Mutex::new(State { commits, lineage: None, rounds: 0, todo: Vec::new() }))
    }

    /// L2 has acknowledged a write.
    pub(crate) fn note(&self, key: &str, version: Version, strength: Strength, now: Moment) {
        self.0.lock().commits.note(key, Commit { version, strength }, now.as_nanos());
    }

    /// L2 has lost something, so it may have lost more.
    pub(crate) fn suspect(&self) {
        self.0.lock().suspect();
    }

    /// Whether it matters who answers.
    fn wants_lineage(&self) -> bool {
        let state = self.0.lock();
        state.lineage.is_none() || !state.commits.is_empty()
    }

    /// L2 answers. If it is another than it was, everything is to be compared; if nothing is, what is
    /// out of reach is forgotten.
    fn meet(&self, lineage: Option<u64>, now: Moment) {
        let mut state = self.0.lock();
        let known = state.lineage;
        state.lineage = lineage.or(known);
        if known.is_some() && state.lineage != known {
            state.suspect();
        }
        if !state.todo.is_empty() {
            return;
        }
        if state.rounds > 0 {
            state.rounds -= 1;
            state.todo = state.commits.by_key().into_iter().collect();
            return;
        }
        state.commits.forget(now.as_nanos().saturating_sub(crate::clock::nanos(REACH)));
    }

    /// So much of what is to be compared.
    fn take(&self, most: usize) -> Vec<Deeds> {
        let mut state = self.0.lock();
        let rest = state.todo.len().saturating_sub(most);
        state.todo.split_off(rest)
    }

    fn put_back(&self, page: Vec<Deeds>) {
        self.0.lock().todo.extend(page);
    }

    fn is_done(&self) -> bool {
        self.0.lock().todo.is_empty()
    }

    /// Whether nothing was written here since, as far as is remembered.
    fn is_newest(&self, (key, commits): &Deeds) -> bool {
        let newest = self.0.lock().commits.newest(key);
        newest.is_none() || newest == commits.last().copied()
    }
}

/// Compares what this node wrote lately with what L2 holds, if a failover may have taken it back, and
/// queues an invalidation of what came back. `asked` is when the `SYNC` was sent that L2 has answered.
/// Begins nothing after `until`, nor more than the queue has room for: the rest is compared next time.
/// True if something is left, and there will be room for it.
pub(crate) async fn reassert<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    asked: Moment,
    until: Instant,
) -> bool {
    let lately = &inner.recovery.lately;
    if !l2.holds_records() || !lately.wants_lineage() {
        return false;
    }
    // Without an answer nothing is forgotten, and the next poll asks again.
    let Ok(lineage) = l2.lineage(inner.l2_limit()).await else { return false };
    lately.meet(lineage, asked);
    let mut any = false;
    while Instant::now() < until {
        let page = lately.take(PAGE.min(inner.recovery.room()));
        if page.is_empty() {
            break;
        }
        any = true;
        if let Err(error) = compare(inner, l2, asked, &page).await {
            tracing::debug!(%error, "L2 could not be asked whether it still holds what was written");
            lately.put_back(page);
            return false;
        }
    }
    any && !lately.is_done()
}

async fn compare<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    asked: Moment,
    page: &[Deeds],
) -> Result<(), L2Error> {
    let heads = l2.read_heads(page.iter().map(|(key, _)| &**key), inner.l2_limit()).await?;
    for (deeds, head) in page.iter().zip(heads) {
        let (key, commits) = deeds;
        let Some(strength) = commits::reassert(commits, head) else { continue };
        if inner.recovery.lately.is_newest(deeds) {
            inner.counters.reasserted.add();
            let version = inner.entropy.version();
            inner.queue(key, Queued { strength, version, not_before: asked });
        }
    }
    Ok(())
}
