//! THE PIPELINE: the way of a read.
//!
//! ```text
//!  caller ──▶ L1, valid? ── fresh ──▶ answer                       (no await, no allocation)
//!               │ no
//!               ▼
//!             arrive: join the young flight, lead one, or wait for a fenced one to end
//!               │ lead: a task of the cache's own, so nobody's drop cancels it
//!               ▼
//!             stamp ──▶ READ L2 ── fresh ─────────────▶ land
//!                         │ lease of another node: wait for its fill
//!                         ▼
//!                       factory (soft, hard, deadline)
//!                         ▼
//!                       PUT if the record is still the one we saw ──▶ land
//!  land: insert into L1 if nothing was heard meanwhile, then answer every caller
//! ```
//!
//! Invariants:
//!
//! - **R1** The stamp of what is loaded is taken before its factory starts, never after; the stamp
//!   of the flight, by which the law of joining judges, when it begins.
//! - **R2** Nothing enters L1 except under the key's lock, and only what the flight's fence allows.
//! - **R3** A flight ends exactly once, whatever happens to its task.
//! - **R4** A caller that arrived after an invalidation takes no result that began before it.
//! - **R5** A reader never writes because of what it finds hidden; a load writes what it loaded.

mod decode;
mod get;
mod lead;
mod load;
mod lookup;
mod probe;
mod wait;

use std::sync::Arc;

pub(crate) use get::get;
pub(crate) use load::new_meta;
pub(crate) use lookup::{Local, hit, lookup};
pub(crate) use probe::synced;

use crate::cache::Inner;
use crate::entry::{Cached, Value};
use crate::error::{Error, ErrorKind};
use crate::factory::Factory;
use crate::flight::Seat;
use crate::l2::Codec;
use crate::options::EntryOptions;
use crate::protocol::KeyHash;
use wait::{Answer, Arrived};

/// One `get_or_set`, past the hit path.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) key: Box<str>,
    pub(crate) hash: KeyHash,
    pub(crate) options: EntryOptions,
    pub(crate) tags: Vec<String>,
}

/// Answers a call: from L1, from another caller's flight, or by leading one.
pub(crate) async fn run<T: Value, C: Codec<T>>(
    inner: Arc<Inner<C>>,
    call: Call,
    factory: Factory<T>,
) -> Result<Cached<T>, Error> {
    call.options.validate(&inner.place(Some(&call.key)))?;
    inner.check_tags(&call.key, &call.tags)?;
    if !inner.enabled {
        return lead::uncached(&inner, &call, factory).await;
    }
    let call = Arc::new(call);
    let arrived = Arrived::now(&inner);
    let mut factory = Some(factory);
    loop {
        if let Some(cached) = lookup(&inner, &call).answer(&inner) {
            return Ok(cached);
        }
        let stamp = || inner.node.stamp(inner.now());
        let answer = match inner.flights.arrive(call.hash, &call.key, stamp) {
            Seat::Lead(flight) => {
                let Some(factory) = factory.take() else {
                    // A caller that led takes what its flight brought, so it never leads twice.
                    lead::abandon(&inner, &flight, inner.error(ErrorKind::Closed, &call.key, ""));
                    return Err(inner.error(ErrorKind::Closed, &call.key, "its factory was used"));
                };
                lead::start(&inner, &flight, &call, factory)?;
                wait::for_own(&inner, &flight, &call).await
            }
            Seat::Join(flight) => wait::for_other(&inner, &flight, &call, arrived).await,
            Seat::Wait(flight) => wait::for_end(&inner, &flight, &call).await,
        };
        if let Answer::Take(result) = answer {
            return result;
        }
    }
}
