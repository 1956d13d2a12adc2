use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, L2, L2Error, Read, Record, Slot,
};
use crate::backplane::{MemoryBackplane, message};
use crate::clock::{Clock, SystemClock};
use crate::protocol::ledger::{Advance, Advanced, Authority, SyncAsk, SyncReply};
use crate::protocol::record::{LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};

/// An L2 in this process: several caches share it as nodes share a server.
///
/// It is the embedded default for examples and tests, and the store of the simulator. Clones share
/// the same records. Nothing is evicted; expired records are dropped when their key is used again,
/// or by [`purge`](MemoryL2::purge).
///
/// ```
/// use crinkle_core::{Cache, l2::MemoryL2};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let shared = MemoryL2::new();
/// let one = Cache::builder("shop").l2(shared.clone()).build()?;
/// let two = Cache::builder("shop").l2(shared).build()?;
/// one.set("answer", 42).await?;
/// assert_eq!(*two.get::<i32>("answer").await?.expect("shared"), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryL2 {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    bus: Option<MemoryBackplane>,
    /// How often it was restored from a snapshot.
    failovers: AtomicU64,
}

/// The contents of a [`MemoryL2`] at one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot(State);

#[derive(Clone, Debug, Default)]
struct State {
    slots: HashMap<String, Slot>,
    ledgers: HashMap<String, Authority>,
}

impl Default for MemoryL2 {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryL2 {
    /// Creates an empty store on the system clock that announces nothing itself.
    #[must_use]
    pub fn new() -> Self {
        Self::assemble(Arc::new(SystemClock), None)
    }

    /// Creates an empty store whose TTLs use `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::assemble(clock, None)
    }

    /// Creates an empty store that announces on `bus` in the same step as it writes, as Redis does.
    #[must_use]
    pub fn announcing(clock: Arc<dyn Clock>, bus: MemoryBackplane) -> Self {
        Self::assemble(clock, Some(bus))
    }

    fn assemble(clock: Arc<dyn Clock>, bus: Option<MemoryBackplane>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                clock,
                bus,
                failovers: AtomicU64::new(0),
            }),
        }
    }

    /// Drops every record and ledger, as `FLUSHALL` does.
    pub fn wipe(&self) {
        *self.shared.state.lock() = State::default();
    }

    /// The contents that a replica has when it has caught up.
    #[must_use]
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.shared.state.lock().clone())
    }

    /// Restores a snapshot, as a failover to that replica does: later writes are lost.
    pub fn restore(&self, snapshot: MemorySnapshot) {
        *self.shared.state.lock() = snapshot.0;
        self.shared.failovers.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops one record without an announcement, as an eviction does.
    pub fn evict(&self, key: &str) {
        self.shared.state.lock().slots.remove(key);
    }

    /// Drops every ledger and keeps the records.
    pub fn evict_ledgers(&self) {
        self.shared.state.lock().ledgers.clear();
    }

    /// Drops expired records; returns how many are left.
    pub fn purge(&self) -> usize {
        let now = self.now_ms();
        let mut state = self.shared.state.lock();
        state.slots.retain(|_, slot| !slot.is_absent(now));
        state.slots.len()
    }

    /// The keys of the stored records and load locks, in no order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let now = self.now_ms();
        let state = self.shared.state.lock();
        let live = state.slots.iter().filter(|(_, slot)| !slot.is_absent(now));
        live.map(|(key, _)| key.clone()).collect()
    }

    /// Stores arbitrary bytes under a key, as another client of the server could.
    pub fn plant(&self, key: &str, bytes: impl Into<bytes::Bytes>, ttl: Duration) {
        let expires = self.now_ms().saturating_add(crate::clock::millis(ttl));
        self.shared.state.lock().slots.insert(key.to_owned(), Slot::new(bytes.into(), expires));
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now().as_nanos() / 1_000_000
    }

    /// Microseconds as a server counts them: far from zero.
    fn now_us(&self) -> u64 {
        1_700_000_000_000_000 + self.shared.clock.now().as_nanos() / 1000
    }

    /// Runs one operation on a key's slot, atomically.
    fn with<R>(&self, key: &str, op: impl FnOnce(&mut Slot, u64) -> R) -> R {
        let now = self.now_ms();
        let mut state = self.shared.state.lock();
        let mut slot = state.slots.remove(key).unwrap_or_default();
        let result = op(&mut slot, now);
        if !slot.is_absent(now) {
            state.slots.insert(key.to_owned(), slot);
        }
        result
    }

    fn announce(&self, announce: Option<Announce>) {
        if let (Some(bus), Some(announce)) = (&self.shared.bus, announce) {
            bus.send(&announce.channel, &announce.message);
        }
    }
}

#[async_trait]
impl L2 for MemoryL2 {
    fn bus(&self) -> Option<BusId> {
        use crate::backplane::Backplane;
        self.shared.bus.as_ref().and_then(Backplane::bus)
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        Ok(self.with(key, |slot, now| slot.read(ask, now)))
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        Ok(self.with(key, |slot, now| {
            let put = slot.put(expected, record, now);
            if put == Put::Stored {
                self.announce(announce);
            }
            put
        }))
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let late = deadline.is_some_and(|deadline| deadline.is_over());
        self.with(key, |slot, now| {
            self.announce(announce);
            if late { slot.remove() } else { slot.set(record, now) }
        });
        if late { Err(L2Error::late()) } else { Ok(()) }
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        self.with(key, |slot, _| {
            self.announce(announce);
            slot.remove();
        });
        Ok(())
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        self.with(key, |slot, now| {
            self.announce(announce);
            slot.expire(version, now);
        });
        Ok(())
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.with(key, |slot, now| slot.release(load_lock, now));
        Ok(())
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        Ok(self.with(key, |slot, now| slot.renew(load_lock, ttl_ms, now)))
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let now = self.now_us();
        let mut state = self.shared.state.lock();
        let authority = state.ledgers.entry(ledger.to_owned()).or_default();
        let mut advanced = authority.advance(now, ask);
        if let (Some(bus), Some(announce)) = (&self.shared.bus, announce) {
            bus.send(&announce.channel, &message::numbered(&announce, advanced));
            advanced.announced = true;
        }
        Ok(advanced)
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        let now = self.now_us();
        let mut state = self.shared.state.lock();
        Ok(state.ledgers.entry(ledger.to_owned()).or_default().sync(now, ask))
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        let state = self.shared.state.lock();
        Ok(state.ledgers.get(ledger).and_then(|ledger| ledger.frontier(epoch)))
    }

    fn is_ledger_near(&self, _: &str, _: &str) -> bool {
        true
    }

    async fn replication_id(&self, _server: Option<&str>) -> Result<Option<u64>, L2Error> {
        Ok(Some(self.shared.failovers.load(Ordering::Acquire)))
    }
}
