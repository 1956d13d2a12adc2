//! The writes of the last seconds, and which of them to compare with L2.
//!
//! - **R1** All writes are compared once a server reports another replication id, or is gone.
//! - **R2** The writes of a server that does not answer are set aside, whatever their age. They are
//!   compared once it answers, or another server has its keys. The others are compared meanwhile.
//! - **R3** A write that was sent before that, and whose reply comes after it, is compared as well.
//! - **R4** Writes that there is no room for are counted, and never compared.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::protocol::Version;
use crate::protocol::commits::{Commit, Commits};
use crate::server::{ReplicationId, Server};
use crate::sync::Mutex;

/// How far back a failover may reach, from the last question to the old primary.
const WINDOW: Duration = Duration::from_secs(10);

/// How many writes are remembered: the newest ones.
const MOST: usize = 65_536;

/// How many bytes they may take: enough for that many writes of keys of 150 bytes. A key may have
/// 32 KiB, and 65,536 of those would take 2 GiB.
pub(crate) const MOST_BYTES: usize = 16 << 20;

/// How often everything is compared: a reply of the old primary may be read after the new one has
/// answered.
const ROUNDS: u8 = 2;

/// This node's recent writes, and the servers that have them.
#[derive(Debug)]
pub(crate) struct RecentWrites(Mutex<State>);

#[derive(Debug)]
struct State {
    commits: Commits,
    evicted: Evicted,
    /// When an answer showed, for the first time or again, which servers there are.
    changed: Option<Moment>,
    /// The replication id of each server that reports one.
    replication_ids: BTreeMap<Server, u64>,
    /// Servers that did not answer the last question for their replication id.
    silent: BTreeSet<Server>,
    /// How often everything is still to be compared, without the present round.
    rounds: u8,
    /// What is still to be compared in this round.
    backlog: Vec<KeyWrites>,
    /// Writes to compare with servers that do not answer (R2).
    aside: BTreeMap<Server, Aside>,
}

/// How many writes of the last seconds were evicted for want of room, by second.
#[derive(Debug, Default)]
struct Evicted(VecDeque<(u64, u64)>);

impl Evicted {
    fn note(&mut self, count: u64, now: Moment) {
        let second = Duration::from_nanos(now.as_nanos()).as_secs();
        self.forget(now);
        match self.0.back_mut() {
            Some((newest, sum)) if *newest >= second => *sum += count,
            _ => self.0.push_back((second, count)),
        }
    }

    /// Forgets evictions that no failover can reach any more.
    fn forget(&mut self, now: Moment) {
        let oldest = Duration::from_nanos(now.as_nanos()).saturating_sub(WINDOW).as_secs();
        while self.0.front().is_some_and(|(second, _)| *second < oldest) {
            self.0.pop_front();
        }
    }

    fn take(&mut self) -> u64 {
        self.0.drain(..).map(|(_, count)| count).sum()
    }
}

/// Writes to compare with a server that does not answer: each once, however often it comes back.
#[derive(Debug)]
struct Aside {
    commits: Commits,
    known: HashSet<Version>,
}

impl Default for Aside {
    fn default() -> Self {
        // `set_aside` enforces the bounds, over all servers.
        Self { commits: Commits::new(usize::MAX, usize::MAX), known: HashSet::new() }
    }
}

/// A key and this node's recent writes to it.
pub(crate) type KeyWrites = (Arc<str>, Vec<Commit>);

/// What the answers of the servers change.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Writes that no failover can reach, but for those of a silent server.
    pub(crate) forgotten: Vec<(Arc<str>, Commit)>,
    /// How many writes should be compared and are not remembered.
    pub(crate) missed: u64,
}

impl State {
    /// Stores the answers. True if one of the servers may lack acknowledged writes (R1): also for
    /// the first answers, because a failover before them shows no other id.
    fn learn(&mut self, answers: Vec<ReplicationId>) -> bool {
        let known = std::mem::take(&mut self.replication_ids);
        let names: BTreeSet<_> = answers.iter().map(|(server, _)| server.clone()).collect();
        self.silent.clear();
        for (server, replication_id) in answers {
            if replication_id.is_err() {
                self.silent.insert(server.clone());
            }
            let before = known.get(&server).copied();
            if let Some(replication_id) = replication_id.ok().flatten().or(before) {
                self.replication_ids.insert(server, replication_id);
            }
        }
        let of = |all: &BTreeMap<Server, u64>| all.values().copied().collect::<BTreeSet<_>>();
        let (before, after) = (of(&known), of(&self.replication_ids));
        let is_gone =
            |(server, replication_id)| !names.contains(server) && !after.contains(replication_id);
        let is_first = known.is_empty() && !after.is_empty();
        is_first || !known.is_empty() && (!after.is_subset(&before) || known.iter().any(is_gone))
    }

    fn begin_round(&mut self) -> u64 {
        let missed = if self.rounds == ROUNDS { self.evicted.take() } else { 0 };
        self.rounds -= 1;
        self.backlog.extend(self.commits.by_key());
        missed
    }

    /// Moves writes that were set aside to the backlog once their server answers (R2).
    fn take_back(&mut self) {
        let (silent, backlog) = (&self.silent, &mut self.backlog);
        self.aside.retain(|server, aside| {
            let stays = silent.contains(server);
            if !stays {
                backlog.extend(aside.commits.by_key());
            }
            stays
        });
    }
}

impl RecentWrites {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            commits: Commits::new(MOST, MOST_BYTES),
            evicted: Evicted::default(),
            changed: None,
            replication_ids: BTreeMap::new(),
            silent: BTreeSet::new(),
            rounds: 0,
            backlog: Vec::new(),
            aside: BTreeMap::new(),
        }))
    }

    /// Remembers a write that L2 has acknowledged.
    pub(crate) fn note(&self, key: &str, commit: Commit, sent: Moment, now: Moment) {
        let mut state = self.0.lock();
        if state.changed.is_some_and(|changed| sent <= changed) {
            state.rounds = state.rounds.max(1);
        }
        let evicted = state.commits.note(key, commit, now.as_nanos());
        if evicted > 0 {
            state.evicted.note(evicted, now);
        }
    }

    /// Compares everything again: L2 has lost something, so it may have lost more.
    pub(crate) fn suspect(&self) {
        self.0.lock().rounds = ROUNDS;
    }

    /// Whether the replication ids matter now.
    pub(crate) fn wants_replication_ids(&self) -> bool {
        let state = self.0.lock();
        let nothing =
            state.commits.is_empty() && state.backlog.is_empty() && state.aside.is_empty();
        state.replication_ids.is_empty() || !nothing
    }

    /// Takes the replication ids of the servers. If one has changed, everything is to be compared.
    /// If nothing is to be compared, this forgets the writes out of reach. Without any answer
    /// nothing changes, and the next poll asks again.
    ///
    /// `asked` is when the question was sent, and `now` when its answers are here.
    pub(crate) fn observe(
        &self,
        answers: Vec<ReplicationId>,
        asked: Moment,
        now: Moment,
    ) -> Option<Observed> {
        if answers.iter().all(|(_, replication_id)| replication_id.is_err()) {
            return None;
        }
        let mut state = self.0.lock();
        let state = &mut *state;
        let is_first = state.replication_ids.is_empty();
        if state.learn(answers) {
            state.changed = Some(now);
            if !is_first || !state.commits.is_empty() {
                state.rounds = ROUNDS;
            }
        }
        let mut observed = Observed::default();
        if state.backlog.is_empty() && state.rounds > 0 {
            observed.missed = state.begin_round();
        }
        // Writes set aside are remembered apart, so they keep nothing from being forgotten.
        let is_comparing = !state.backlog.is_empty();
        state.take_back();
        if !is_comparing {
            observed.forgotten =
                state.commits.forget(asked.as_nanos().saturating_sub(nanos(WINDOW)));
            state.evicted.forget(asked);
        }
        Some(observed)
    }

    /// Whether this server did not answer the last question.
    pub(crate) fn is_silent(&self, server: &Server) -> bool {
        self.0.lock().silent.contains(server)
    }

    /// Whether any server did not answer the last question.
    pub(crate) fn any_is_silent(&self) -> bool {
        !self.0.lock().silent.is_empty()
    }

    /// Keeps writes to compare with a server once it answers (R2): each once, however often it
    /// comes back. Returns how many writes there was no room for.
    pub(crate) fn set_aside(&self, server: Server, (key, commits): &KeyWrites) -> u64 {
        let mut state = self.0.lock();
        let all = state.aside.values();
        let (mut count, mut bytes) =
            all.fold((0, 0), |(n, b), aside| (n + aside.known.len(), b + aside.commits.bytes()));
        let aside = state.aside.entry(server).or_default();
        let mut refused = 0;
        for commit in commits {
            if aside.known.contains(&commit.version) {
                continue;
            }
            // The bounds of the remembered writes apply to all servers together.
            if count >= MOST || bytes >= MOST_BYTES {
                refused += 1;
                continue;
            }
            let before = aside.commits.bytes();
            aside.commits.note(key, *commit, 0);
            (count, bytes) = (count + 1, bytes + aside.commits.bytes() - before);
            aside.known.insert(commit.version);
        }
        refused
    }

    /// Takes up to `most` keys from the backlog.
    pub(crate) fn take(&self, most: usize) -> Vec<KeyWrites> {
        let mut state = self.0.lock();
        let rest = state.backlog.len().saturating_sub(most);
        state.backlog.split_off(rest)
    }

    /// Whether the backlog is empty.
    pub(crate) fn is_done(&self) -> bool {
        self.0.lock().backlog.is_empty()
    }

    /// Whether this node has not written the key since, as far as it remembers.
    pub(crate) fn is_newest(&self, (key, commits): &KeyWrites) -> bool {
        let newest = self.0.lock().commits.newest(key);
        newest.is_none() || newest == commits.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ledger::Strength;

    #[test]
    fn a_server_that_is_new_or_gone_or_another_is_noticed_and_a_silent_one_is_not_taken_for_that() {
        let server = |name: &str| Some(Arc::from(name));
        let silent = || Err(crate::l2::L2Error::circuit_open());
        let recent_writes = RecentWrites::new();
        let learn = |answers: Vec<ReplicationId>| recent_writes.0.lock().learn(answers);
        assert!(learn(vec![(server("a"), Ok(Some(1))), (server("b"), Ok(Some(2)))]), "the first");
        assert!(!learn(vec![(server("a"), Ok(Some(1))), (server("b"), silent())]));
        assert!(recent_writes.is_silent(&server("b")) && !recent_writes.is_silent(&server("a")));
        assert!(learn(vec![(server("a"), Ok(Some(3))), (server("b"), silent())]), "another");
        assert!(!learn(vec![(server("a"), Ok(Some(3))), (server("b"), Ok(Some(2)))]));
        assert!(learn(vec![(server("a"), Ok(Some(3)))]), "its keys are elsewhere");
        assert!(!learn(vec![(server("a"), Ok(None))]), "nobody may ask");
        assert!(!learn(vec![(server("moved"), Ok(Some(3)))]), "the same by another name");
        assert!(learn(vec![(server("moved"), Ok(Some(3))), (server("c"), Ok(Some(4)))]), "new");
    }

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    fn commit(version: u64) -> Commit {
        Commit { version: Version(version), strength: Strength::Hard }
    }

    /// A node that always writes more than it remembers has not lost a day's writes.
    #[test]
    fn what_was_written_before_the_servers_were_known_is_compared_once() {
        let recent_writes = RecentWrites::new();
        let answers = |id| vec![(None, Ok(id))];
        recent_writes.note("key", commit(1), at(0), at(0));
        recent_writes.observe(answers(None), at(1), at(1)).expect("an answer");
        assert!(
            recent_writes.take(9).is_empty(),
            "this store has no ids, so nothing shows a failover"
        );
        for _ in 0..ROUNDS {
            recent_writes.observe(answers(Some(1)), at(2), at(2)).expect("an answer");
            assert_eq!(recent_writes.take(9).len(), 1);
        }
        recent_writes.observe(answers(Some(1)), at(3), at(3)).expect("an answer");
        assert!(recent_writes.take(9).is_empty());
    }

    #[test]
    fn what_was_sent_before_the_servers_changed_and_answered_after_is_compared() {
        let recent_writes = RecentWrites::new();
        let answers = |id| vec![(None, Ok(Some(id)))];
        recent_writes.observe(answers(1), at(2), at(2)).expect("an answer");
        let compared = |id, second| {
            recent_writes.observe(answers(id), at(second), at(second)).expect("an answer");
            recent_writes.take(9).len()
        };
        recent_writes.note("sent to the first primary", commit(1), at(3), at(3));
        assert_eq!(compared(1, 4), 0);
        recent_writes.note("perhaps sent to another", commit(2), at(1), at(5));
        assert_eq!([6, 7].map(|second| compared(1, second)), [2, 0]);
        recent_writes.observe(answers(2), at(8), at(9)).expect("an answer");
        assert_eq!(recent_writes.take(9).len(), 2);
        assert_eq!([10, 11].map(|second| compared(2, second)), [2, 0], "two rounds");
        recent_writes.note("perhaps sent to another", commit(3), at(8), at(12));
        assert_eq!([13, 14].map(|second| compared(2, second)), [2, 0]);
    }

    #[test]
    fn of_what_fell_out_only_the_last_seconds_count() {
        let mut evicted = Evicted::default();
        (0..86_400).for_each(|second| evicted.note(10, at(second)));
        assert_eq!(evicted.0.len(), 11);
        assert_eq!(evicted.take(), 110);
        evicted.note(10, at(86_400));
        evicted.forget(at(86_410));
        assert_eq!(evicted.0.len(), 1, "still in reach");
        evicted.forget(at(86_411));
        assert_eq!(evicted.take(), 0);
    }

    #[test]
    fn what_comes_again_is_set_aside_once_and_in_its_order() {
        let (recent_writes, server) = (RecentWrites::new(), Some(Arc::from("b")));
        let set_aside = |commits: &[u64]| {
            let commits = commits.iter().copied().map(commit).collect();
            assert_eq!(recent_writes.set_aside(server.clone(), &("key".into(), commits)), 0);
        };
        [&[1, 2][..], &[1, 2, 3], &[1], &[4]].into_iter().for_each(set_aside);
        recent_writes.0.lock().take_back();
        assert_eq!(recent_writes.take(9), [("key".into(), [1, 2, 3, 4].map(commit).to_vec())]);
        let more = (0..MOST as u64 + 5).map(commit).collect();
        assert_eq!(recent_writes.set_aside(server.clone(), &("key".into(), more)), 5, "no room");
    }

    /// A write that fails again and again at a server that answers comes back with every poll.
    #[test]
    fn what_was_set_aside_keeps_nothing_from_being_forgotten() {
        let recent_writes = RecentWrites::new();
        let answers = || vec![(None, Ok(Some(1)))];
        recent_writes.observe(answers(), at(0), at(0)).expect("an answer");
        recent_writes.note("key", commit(1), at(1), at(1));
        let _ = recent_writes.set_aside(None, &("other".into(), vec![commit(2)]));
        let observed = recent_writes.observe(answers(), at(20), at(20)).expect("an answer");
        assert_eq!(observed.forgotten, [("key".into(), commit(1))]);
        assert!(!recent_writes.is_done(), "the other is compared");
    }
}
