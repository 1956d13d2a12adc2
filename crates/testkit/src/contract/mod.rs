//! Conformance suites. Each check panics with the sentence of the contract that is broken.
//!
//! ```
//! use crinkle_core::backplane::MemoryBackplane;
//! use crinkle_core::l2::MemoryL2;
//! use crinkle_testkit::contract;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! contract::l2(&MemoryL2::new()).await;
//! contract::backplane(&MemoryBackplane::new()).await;
//! # }
//! ```
//!
//! The suites can run on a live store beside its other users. Their keys begin with `prefix`, by
//! default `contract:`, and are not reused within a process.

mod announcing;
mod backplane;
mod cas;
mod codec;
mod keys;
mod ledger;
mod races;
mod records;

pub use codec::codec;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::backplane::{Backplane, Incoming, Subscription};
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Atomicity, L2, Record};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::LoadLockRequest;
use crinkle_l2_cas::CasStore;

/// How long a check waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks a store against the contract of [`L2`]. The rules for concurrent calls are checked unless
/// the store is [`Plain`](Atomicity::Plain).
///
/// # Panics
///
/// If the store breaks the contract; the message is the broken sentence.
///
/// # Cancel safety
///
/// Dropping the future leaves some short-lived keys behind.
pub async fn l2<S: L2 + ?Sized>(store: &S) {
    l2_under(store, "contract:").await;
}

/// The same with keys that begin with `prefix`.
///
/// # Panics
///
/// If the store breaks the contract; the message is the broken sentence.
///
/// # Cancel safety
///
/// Dropping the future leaves some short-lived keys behind.
pub async fn l2_under<S: L2 + ?Sized>(store: &S, prefix: &str) {
    records::check(store, prefix).await;
    keys::check(store, prefix).await;
    ledger::check(store, prefix).await;
    if store.atomicity() != Atomicity::Plain {
        races::check(store, prefix).await;
    }
}

/// Checks a store against the contract of [`CasStore`]: a token never fits again, and values are
/// kept byte for byte.
///
/// # Panics
///
/// If the store breaks the contract; the message is the broken sentence.
///
/// # Cancel safety
///
/// Dropping the future leaves some short-lived keys behind.
pub async fn cas_store<S: CasStore>(store: &S) {
    cas::check(store, "contract:").await;
}

/// Checks a backplane against the contract of [`Backplane`].
///
/// # Panics
///
/// If the backplane breaks the contract; the message is the broken sentence.
///
/// # Cancel safety
///
/// Dropping the future leaves nothing behind.
pub async fn backplane<B: Backplane + ?Sized>(bus: &B) {
    backplane::check(bus).await;
}

/// Checks that a store announces on a bus of the same name, as the ordering section of [`L2`]
/// demands.
///
/// # Panics
///
/// If the store breaks the contract; the message is the broken sentence.
///
/// # Cancel safety
///
/// Dropping the future leaves some short-lived keys behind.
pub async fn announcing<S: L2 + ?Sized, B: Backplane + ?Sized>(store: &S, bus: &B) {
    announcing::check(store, bus, "contract:").await;
}

/// Returns a key that no other check uses.
fn fresh(prefix: &str, what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}:{number}:{what}", std::process::id())
}

/// A value record that is fresh for an hour.
fn value(version: u64, payload: &str) -> Record {
    value_of(version, payload, 3_600_000)
}

/// A value record with a logical TTL of `logical_ms` and a physical TTL of two hours.
fn value_of(version: u64, payload: &str, logical_ms: u64) -> Record {
    Record { bytes: envelope(version, payload, logical_ms).encode(), ttl_ms: 7_200_000 }
}

fn envelope(version: u64, payload: &str, logical_ms: u64) -> Envelope<'_> {
    Envelope {
        version: Version(version),
        expired: false,
        epoch: None,
        stamp: 0,
        logical_ms,
        physical_ms: 7_200_000,
        schema: 1,
        codec: 1,
        compression: 0,
        key: "key",
        weight: 1,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: vec!["tag"],
        payload: payload.as_bytes(),
    }
}

fn ask(id: u64) -> LoadLockRequest {
    LoadLockRequest { id: Version(id), ttl_ms: 60_000, replace: None, hidden: None }
}

/// Returns the next message; panics if none comes.
async fn next(subscription: &mut dyn Subscription) -> Bytes {
    match tokio::time::timeout(PATIENCE, subscription.next()).await {
        Ok(Some(Incoming::Message(message))) => message,
        Ok(other) => panic!("an open subscription delivers messages, but it returned {other:?}"),
        Err(_) => panic!("a subscriber receives messages published after it subscribed"),
    }
}
