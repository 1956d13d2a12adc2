//! The pipeline of a read.
//!
//! | file | holds |
//! |---|---|
//! | here | one call of `get_or_set`: registers with a flight, then leads, joins or waits |
//! | `get`, `contains`, `many` | the other reads: no factory, no value, many keys |
//! | `lookup` | asks L1 |
//! | `lead`, `wait`, `caller` | leads a flight; waits for one; judges its outcome for one caller |
//! | `probe`, `fetch`, `replica` | asks L2: how; READ and load lock; a replica first |
//! | `verify` | compares an L1 copy with the head of its record |
//! | `decode`, `unread` | record to entry; reports records that this node cannot use |
//! | `judge` | whether this node can judge records of L2, and how it does |
//! | `completion` | the guard that completes a flight exactly once |
//! | `load`, `fill` | runs the factory; stores its result in L2 |
//! | `patience` | limits how long a batch waits for L2 |
//!
//! ```text
//!  caller ──▶ L1, valid? ── fresh ──▶ answer                       (no await, no allocation)
//!               │ no
//!               ▼
//!             register: join the young flight, lead one, or wait for a fenced one to end
//!               │ lead: the caller polls, or a task if others wait or the caller leaves
//!               ▼
//!             stamp ──▶ READ L2 ── fresh ─────────────▶ complete      (may try a replica first)
//!                         │ load lock of another node: wait for its fill
//!                         ▼
//!                       factory, in a task (soft and hard timeout, deadline)
//!                         ▼
//!                       PUT if the record is still the one that READ saw ──▶ complete
//!  complete: insert into L1 if no conflicting message was received, then answer every caller
//! ```
//!
//! Invariants:
//!
//! - **R1** A load takes its stamp before its factory starts, never after. A flight takes its own
//!   stamp when it begins; the rules of joining use that one.
//! - **R2** Nothing enters L1 except under the key's lock, and only what the flight's fence allows.
//! - **R3** A flight ends exactly once, even if its task panics or never runs.
//! - **R4** A caller that registers after an invalidation takes no result of an earlier load.
//! - **R5** A reader never writes because it finds a hidden record; a load writes what it loaded.
//! - **R6** A load yields an outcome; each caller applies its own options to it (`caller`).

mod caller;
pub(crate) mod catch_up;
mod completion;
mod contains;
mod decode;
mod fetch;
mod fill;
mod get;
mod judge;
mod lead;
mod load;
mod lookup;
mod many;
mod patience;
mod probe;
mod replica;
pub(crate) mod stale;
mod unread;
mod verify;
mod wait;

use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use contains::contains;
pub(crate) use fill::NewEntry;
pub(crate) use get::{get, get_many};
pub(crate) use judge::ledger_known;
pub(crate) use lookup::{Local, hit, hit_at, lookup};
pub(crate) use many::run_many;

use crate::background::{ensure_runtime_runs, sweep};
use crate::entry::{Cached, Deadlines, Entry, EntryFlags, Meta, Shared, Source, Value};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::factory::{Factory, failed};
use crate::flight::{Flight, Role, nesting};
use crate::node::{Coded, Node};
use crate::options::EntryOptions;
use crate::protocol::{KeyHash, Version};
use crate::telemetry::spans;
use caller::{Answer, Ticket};

/// One `get_or_set` that L1 could not answer at once.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When the call began: its limits count from here.
    pub(crate) came: Instant,
    pub(crate) key: Box<str>,
    pub(crate) hash: KeyHash,
    pub(crate) options: EntryOptions,
    pub(crate) tags: Vec<String>,
    /// Load the key although its entry of this version is still fresh.
    pub(crate) refresh: Option<Version>,
}

impl Call {
    pub(crate) fn new(key: &str, hash: KeyHash, options: EntryOptions, tags: Vec<String>) -> Self {
        let came = Instant::now();
        Self { came, key: key.into(), hash, options, tags, refresh: None }
    }

    /// Registers the call with the key's flight: lead, join, or wait and retry.
    ///
    /// A strict caller joins only a strict flight that began after it registered.
    fn register(&self, node: &Node, ticket: Ticket) -> Role {
        let stamp = || node.coherence.stamp(node.now());
        let strict = self.options.strict;
        let role = match node.flights.register(self.hash, &self.key, strict, stamp) {
            Role::Join(flight) if strict && !(flight.strict && ticket.is_before(&flight)) => {
                Role::Wait(flight)
            }
            role => role,
        };
        if let Role::Join(flight) | Role::Wait(flight) = &role
            && let Some(leader) = flight.driver.hand_over()
        {
            // The leading caller may not poll its future, or may be the one that waits here.
            leader.spawn();
        }
        role
    }

    /// The call as the leader's: strict if a waiting caller needs a strict flight.
    fn leading(self: &Arc<Self>, flight: &Flight) -> Arc<Self> {
        if flight.strict == self.options.strict {
            return Arc::clone(self);
        }
        let mut call = Self::clone(self);
        call.options.strict = flight.strict;
        Arc::new(call)
    }

    /// The same call, which skips L1.
    fn past_l1(&self) -> Arc<Self> {
        let mut call = self.clone();
        call.options.skip_l1_read = true;
        Arc::new(call)
    }

    /// The same call, to replace a fresh entry of this version.
    pub(crate) fn refreshing(self, version: Version) -> Self {
        Self { refresh: Some(version), ..self }
    }
}

/// The caller's factory and default value.
pub(crate) struct Job<T> {
    pub(crate) factory: Factory<T>,
    /// The caller's `fail_safe_default`, wrapped as an uncached entry.
    pub(crate) default: Option<Arc<Entry<T>>>,
}

/// Answers a call from L1, from another caller's flight, or by leading a flight.
pub(crate) async fn run<T: Value>(
    node: Coded<T>,
    call: Call,
    factory: Factory<T>,
    default: Option<T>,
) -> Result<Cached<T>, Error> {
    node.check_open(Some(&call.key))?;
    call.options.validate(&node.place(Some(&call.key)))?;
    node.check_tags(&call.key, &call.tags)?;
    let default = default.map(|value| default_value(&node, &call, value));
    let job = Job { factory, default: default.clone() };
    let result = answer(&node, call, job).await;
    match (result, default) {
        (Err(error), Some(default)) if error.is_of_a_load() => {
            node.stale_hit(&default.meta.key, Source::Default);
            Ok(Cached::new(default, node.now(), Source::Default, true))
        }
        (result, _) => result,
    }
}

async fn answer<T: Value>(node: &Coded<T>, call: Call, job: Job<T>) -> Result<Cached<T>, Error> {
    if !node.enabled {
        return lead::uncached(node, &call, job).await;
    }
    ensure_runtime_runs(node).await;
    sweep::ensure(node);
    let mut call = Arc::new(call);
    let ticket = Ticket::now(node);
    let (default, mut job, mut turn) = (job.default.clone(), Some(job), None);
    loop {
        if let Some(cached) = lookup(node, &call).answer(node) {
            return Ok(cached);
        }
        let role = call.register(node, ticket);
        let nested = nesting::wait_for(role.flight(), || node.place(Some(&role.flight().key)))?;
        let answer = match role {
            Role::Lead(flight) => {
                let Some(job) = job.take() else {
                    // A leader takes the outcome of its flight, so it never leads twice.
                    lead::abandon(node, &flight, node.error(ErrorKind::Closed, &call.key, ""));
                    return Err(node.error(ErrorKind::Closed, &call.key, "its factory was used"));
                };
                lead::lead(node, &flight, &call, job).await?
            }
            Role::Join(flight) => wait::for_other(node, &flight, &call, ticket).await,
            Role::Wait(flight) => {
                if call.options.strict {
                    turn.get_or_insert_with(|| node.flights.strict_turn(call.hash));
                }
                wait::for_end(node, &flight, &call).await
            }
        };
        drop(nested);
        match answer {
            Answer::Take(result) => return result,
            again => {
                match again {
                    Answer::AskL2 => call = call.past_l1(),
                    Answer::AskAgain(error) => {
                        job = Some(Job { factory: failed(error), default: default.clone() });
                    }
                    Answer::Take(_) | Answer::Again => {}
                }
                if let Answer::Take(result) = wait::too_late(node, &call) {
                    return result;
                }
            }
        }
    }
}

/// Refreshes a fresh entry in the background, unless a load of the key is running.
pub(crate) fn refresh<T: Value>(node: &Coded<T>, call: Call, factory: Factory<T>) {
    let call = Arc::new(call);
    if let Role::Lead(flight) = call.register(node, Ticket::now(node)) {
        let count = &node.counters.eager_refreshes;
        node.note(count, &call.key, |key| Event::EagerRefresh { key });
        let job = Job { factory, default: None };
        flight.callers.let_finish();
        let span = spans::refresh(&node.telemetry, &call.key);
        if let Ok(leader) = span.in_scope(|| lead::leader(node, &flight, &call, job)) {
            return leader.spawn();
        }
    }
    // No refresh started: if the entry is still in L1, another caller may try after one poll.
    if let Some(erased) = node.l1.get(call.hash, &call.key) {
        erased.meta().rearm(node.now() + node.settings.poll);
    }
}

/// Wraps a default value as an entry: stale from the start, expired after deadline and throttle.
fn default_value<T>(node: &Node, call: &Call, value: T) -> Arc<Entry<T>> {
    let (now, options) = (node.now(), &call.options);
    let throttle = options.fail_safe.unwrap_or_default().throttle;
    let physical = now + options.factory_deadline + throttle;
    let deadlines = Deadlines { created: now, logical: now, physical };
    let (version, stamp) = (node.entropy.version(), node.coherence.stamp(now));
    let meta = Meta::new(
        &call.key,
        version,
        Box::default(),
        stamp,
        deadlines,
        EntryFlags::PLAIN,
        options.weight,
    );
    Arc::new(Entry { meta, value: Shared::Own(value) })
}
