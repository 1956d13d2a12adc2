//! Model of one key on two nodes: fills, writes, evictions, a disconnected subscription.
//!
//! A value is the set of source updates that it includes; every write is one update. A reader that
//! knows a write must get a value that includes it. The exception is a blind `set` of an older
//! value that was stored later: that race is the application's.

use std::hash::{Hash, Hasher};

use crinkle_core::protocol::Version;
use crinkle_core::protocol::commits::Commit;
use crinkle_core::protocol::flight::{FlightId, KeyState};
use crinkle_core::protocol::record::Head;
use stateright::{Model, Property};

use super::{Expect, Job, REACH, Report, explore, same};

/// The effect of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Set,
    Remove,
    Expire,
}

/// An L1 copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Copied {
    pub(super) value: u8,
    pub(super) version: Version,
    pub(super) session: u8,
}

/// The progress of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Begun,
    /// The source is read together with taking the load lock. A later read of the source would be
    /// newer, and decides only whether the value is stale.
    Loaded {
        expected: Version,
        value: u8,
    },
    Ended {
        stored: bool,
        version: Version,
        value: u8,
    },
}

/// A load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Load {
    pub(super) id: FlightId,
    pub(super) session: u8,
    pub(super) stage: Stage,
    pub(super) required: u8,
    pub(super) last: Option<Version>,
    /// Whether its `PUT` was stored.
    pub(super) filled: bool,
}

/// A write, or a version check of an L1 copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) id: FlightId,
    pub(super) op: Op,
    pub(super) version: Version,
    pub(super) session: u8,
    pub(super) bit: u8,
    pub(super) value: u8,
    pub(super) executed: bool,
}

/// A version check: the version in question, the session it began in, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) id: FlightId,
    pub(super) version: Version,
    pub(super) session: u8,
    pub(super) answer: Option<bool>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) l1: Option<Copied>,
    pub(super) key: KeyState,
    pub(super) loads: Vec<Load>,
    pub(super) writes: Vec<Write>,
    pub(super) check: Option<Check>,
    pub(super) queue: Vec<(Version, u8)>,
    pub(super) cut: bool,
    pub(super) session: u8,
    pub(super) required: u8,
    pub(super) commits: Vec<Commit>,
    /// The writes of this node that a failover took back and that it has not asserted again.
    pub(super) lost: u8,
    /// How many callers have yet to register.
    pub(super) arrivals: u8,
    /// How many ids the node has issued.
    pub(super) names: u64,
}

/// The data of a replica, which may lack the last writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) record: Option<Head>,
    pub(super) value: u8,
    pub(super) executed: u8,
}

/// The state of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) source: u8,
    pub(super) record: Option<Head>,
    pub(super) value: u8,
    pub(super) step: usize,
    pub(super) executed: u8,
    pub(super) excused: u8,
    pub(super) evictions: u8,
    pub(super) cuts: u8,
    pub(super) failovers: u8,
    pub(super) replica: Option<Replica>,
    /// The bits that each node wrote.
    pub(super) wrote: [u8; 2],
    pub(super) nodes: [Node; 2],
    pub(super) bad: Option<&'static str>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum Action {
    Write(usize),
    Execute(usize, usize),
    Returned(usize, usize),
    Deliver(usize),
    Evict,
    Cut(usize),
    Reconnect(usize),
    Arrive(usize),
    Load(usize, usize),
    Verify(usize),
    Replicate,
    FailOver,
    Reassert(usize),
}

/// The rule that a sabotaged variant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum Sabotage {
    None,
    UnconditionalPut,
    AbsentIsFine,
    NoFence,
    ReconnectKeepsSession,
    FillAdoptsSession,
    UncheckedJoin,
    JoinAcrossSessions,
    LastReceivedOnly,
    SetInsertsUnchecked,
    CheckAdoptsSession,
    CommitsForgotten,
    AbsentIsIntact,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub(super) script: &'static [Op],
    pub(super) evictions: u8,
    pub(super) cuts: u8,
    /// How often a replica without the last writes is promoted.
    pub(super) failovers: u8,
    /// How many callers register on each node.
    pub(super) arrivals: [u8; 2],
    pub(super) sabotage: Sabotage,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { source, record, value, step, executed, excused, evictions, cuts, .. } = self;
        let Self { failovers, replica, wrote, nodes, bad, .. } = self;
        same::hash(to, &[0, 1], |first, names| {
            nodes[first].hash(names);
            nodes[1 - first].hash(names);
            (source, record, value, step, executed, excused, evictions, cuts, bad).hash(names);
            (failovers, replica, wrote[first], wrote[1 - first]).hash(names);
        });
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { l1, key, loads, writes, check, queue, cut, session, .. } = self;
        (l1, key, loads, writes, check, queue, cut, session).hash(to);
        (self.required, self.arrivals, &self.commits, self.lost).hash(to);
    }
}

impl State {
    /// Returns whether a value lacks updates that a reader on this node must see.
    pub(super) fn lacks(&self, required: u8, value: u8) -> bool {
        required & !self.excused & !value != 0
    }

    fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.loads.is_empty()
                && node.writes.is_empty()
                && node.check.is_none()
                && node.queue.is_empty()
                && !node.cut
                && node.lost == 0
        })
    }

    fn served_right(&self) -> bool {
        self.bad.is_none()
            && self.nodes.iter().all(|node| {
                node.l1.is_none_or(|copy| {
                    copy.session != node.session || !self.lacks(node.required, copy.value)
                })
            })
    }

    fn converged(&self) -> bool {
        if !self.is_quiet() {
            return true;
        }
        let head = match self.record {
            Some(Head::Value { version, expired: false, .. }) => Some(version),
            _ => None,
        };
        let copies = self.nodes.iter().filter_map(|n| n.l1.filter(|c| c.session == n.session));
        (head.is_none() || !self.lacks(self.executed, self.value))
            && copies.into_iter().all(|copy| {
                !self.lacks(self.executed, copy.value) && head.is_none_or(|v| v == copy.version)
            })
    }
}

impl Model for Keys {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            source: 0,
            record: None,
            value: 0,
            step: 0,
            executed: 0,
            excused: 0,
            evictions: self.evictions,
            cuts: self.cuts,
            failovers: self.failovers,
            replica: None,
            wrote: [0; 2],
            nodes: self.arrivals.map(|arrivals| Node { arrivals, ..Node::default() }),
            bad: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.bad.is_none() {
            self.enabled(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action);
        state.nodes.iter().all(|node| node.queue.len() <= 3).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no stale read behind a known write", |_: &Self, state: &State| {
                state.served_right()
            }),
            Property::always("quiet copies are the record", |_: &Self, state: &State| {
                state.converged()
            }),
            Property::sometimes(REACH, |model: &Self, state: &State| {
                state.step == model.script.len()
                    && state.is_quiet()
                    && state.nodes.iter().any(|node| {
                        node.l1.is_some_and(|copy| {
                            copy.session == node.session && copy.value == state.source
                        })
                    })
            }),
        ]
    }
}

/// Runs the configurations of this model that the job selects.
pub fn run(job: &Job, judge: &mut dyn FnMut(Report)) {
    let all = designs(job.deep)
        .into_iter()
        .map(|(name, model)| (format!("keys {name}"), model, Expect::Holds))
        .chain(sabotaged().into_iter().map(|(what, model)| {
            let model = Keys { sabotage: what, ..model };
            (format!("keys sabotage: {what:?}"), model, Expect::Caught)
        }));
    for (name, model, expect) in all {
        if name.contains(&job.filter) {
            judge(explore(job, name, model, expect));
        }
    }
}

fn keys(script: &'static [Op], arrivals: [u8; 2]) -> Keys {
    Keys { script, evictions: 0, cuts: 0, failovers: 0, arrivals, sabotage: Sabotage::None }
}

fn failing_over(keys: Keys) -> Keys {
    Keys { failovers: 1, ..keys }
}

fn designs(deep: bool) -> Vec<(&'static str, Keys)> {
    use Op::{Expire, Remove, Set};
    let mut all = vec![
        ("K1 two removals, joiners", keys(&[Remove, Remove], [0, 2])),
        ("K2 a removal, two evictions", Keys { evictions: 2, ..keys(&[Remove], [1, 1]) }),
        ("K3 a removal, a cut, joiners", Keys { cuts: 1, ..keys(&[Remove], [0, 2]) }),
        ("K4 a set, a cut, an eviction", Keys { cuts: 1, evictions: 1, ..keys(&[Set], [1, 1]) }),
        ("K6 set against set", keys(&[Set, Set], [0, 1])),
        ("K7 set against remove", keys(&[Set, Remove], [0, 1])),
        ("K8 expire against set", keys(&[Expire, Set], [0, 1])),
        ("K9 an expiry, joiners", keys(&[Expire], [1, 1])),
        ("KR a removal, a failover", failing_over(keys(&[Remove], [1, 1]))),
        ("KS a set, a failover", failing_over(keys(&[Set], [1, 1]))),
    ];
    if deep {
        all.extend([
            ("K6= set against set, both read", keys(&[Set, Set], [1, 1])),
            ("K7= set against remove, both read", keys(&[Set, Remove], [1, 1])),
            ("K8= expire against set, both read", keys(&[Expire, Set], [1, 1])),
            ("K1+ two removals, more callers", keys(&[Remove, Remove], [1, 2])),
            (
                "K2+ two removals, two evictions",
                Keys { evictions: 2, ..keys(&[Remove, Remove], [1, 1]) },
            ),
            ("K3+ two writes, a cut", Keys { cuts: 1, ..keys(&[Set, Remove], [1, 1]) }),
            (
                "K5 three writes, an eviction",
                Keys { evictions: 1, ..keys(&[Remove, Remove, Set], [1, 1]) },
            ),
            ("K6+ three sets", keys(&[Set, Set, Set], [0, 1])),
            ("K7+ set against remove, more callers", keys(&[Set, Remove], [1, 2])),
            ("K8+ expire against set, a cut", Keys { cuts: 1, ..keys(&[Expire, Set], [1, 1]) }),
        ]);
    }
    all
}

fn sabotaged() -> Vec<(Sabotage, Keys)> {
    use Op::{Remove, Set};
    let remove = keys(&[Remove], [1, 1]);
    let cut = Keys { cuts: 1, ..keys(&[Remove], [1, 1]) };
    vec![
        (Sabotage::UnconditionalPut, remove),
        (Sabotage::AbsentIsFine, remove),
        (Sabotage::NoFence, remove),
        (Sabotage::ReconnectKeepsSession, cut),
        (Sabotage::FillAdoptsSession, cut),
        (Sabotage::UncheckedJoin, keys(&[Remove], [2, 2])),
        (Sabotage::JoinAcrossSessions, Keys { cuts: 1, ..keys(&[Remove], [1, 2]) }),
        (Sabotage::LastReceivedOnly, keys(&[Set, Set], [1, 1])),
        (Sabotage::SetInsertsUnchecked, keys(&[Set, Set], [0, 0])),
        (Sabotage::CheckAdoptsSession, Keys { cuts: 2, ..keys(&[Remove], [1, 1]) }),
        (Sabotage::CommitsForgotten, failing_over(remove)),
        (Sabotage::AbsentIsIntact, Keys { evictions: 1, ..failing_over(remove) }),
    ]
}
