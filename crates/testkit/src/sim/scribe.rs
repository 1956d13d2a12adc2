//! Records what each command does to the store.

use std::sync::Arc;

use bytes::Bytes;
use crinkle_core::backplane::message;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{AnnounceRemoval, L2Error, MemoryL2, Read, Record};
use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, Target};

use super::copies::Copies;
use super::names::{key_of, read_value};
use super::plan::TAGS;
use super::world::World;
use crate::history::{Applied, Operation, Scope, Stamped};

/// Runs commands on the store and records them.
pub(super) struct Scribe {
    pub(super) world: Arc<World>,
    pub(super) node: usize,
    pub(super) call: Option<usize>,
    pub(super) sent: u32,
    /// The data of the answering server, if it is not the primary.
    pub(super) other: Option<Arc<Copies>>,
}

impl Scribe {
    pub(super) fn store(&self, key: &str) -> &MemoryL2 {
        match &self.other {
            Some(copies) => &copies[self.world.place(key)],
            None => self.world.store(key),
        }
    }

    /// The server that holds the ledger.
    pub(super) fn first(&self) -> &MemoryL2 {
        match &self.other {
            Some(copies) => &copies[0],
            None => self.world.first(),
        }
    }

    /// Returns version and stamp of a record.
    pub(super) fn written(&self, key: &str, record: &Record) -> Written {
        let is_near = std::ptr::eq(self.store(key), self.world.first());
        let written = Written::of(record);
        Written { stamp: written.stamp.map(|stamp| Stamped { is_near, ..stamp }), ..written }
    }

    pub(super) fn note(
        &self,
        key: &str,
        operation: Operation,
        written: Written,
        message: Option<Bytes>,
    ) {
        let at = self.world.at();
        let key = key.split_once("v1:e:").and_then(|(_, name)| key_of(name));
        let mut log = self.world.log.lock();
        let call = match operation {
            Operation::Advance { .. } => {
                self.call.map(|call| log.companions.get(&call).copied().unwrap_or(call))
            }
            _ => self.call,
        };
        let index = log.apply(Applied {
            at,
            sent: self.sent,
            not_before: at.order,
            sure: true,
            node: Some(self.node),
            key,
            operation,
            call,
            version: written.version,
            stamp: written.stamp,
            announced: false,
            lost: None,
        });
        if let Some(message) = message {
            log.announced_by.insert(message, index);
        }
    }

    /// Records, for the timeline only, a command that changes no value but decides which node may
    /// load.
    pub(super) fn detail(&self, key: &str, what: impl FnOnce() -> String) {
        if !self.world.detailed {
            return;
        }
        let key = key.split_once("v1:e:").and_then(|(_, name)| key_of(name));
        let (at, node, sent) = (self.world.at(), self.node, self.sent);
        let what = format!("L2 answers node {node}, asked at #{sent}: {}", what());
        self.world.log.lock().details.push((at, key, what));
    }

    pub(super) fn numbered(
        &self,
        ask: &Advance,
        announce: Option<&AnnounceRemoval>,
        advanced: Advanced,
    ) {
        let at = self.world.at();
        self.world.log.lock().advanced.push(at);
        if let [Target::Tag(tag)] = ask.removal.targets[..]
            && tag.is_reserved()
        {
            self.world.log.lock().owes(self.node, tag.0 & 1 == 0);
            self.detail("", || format!("ADVANCE {tag:?}"));
            return;
        }
        let known = (advanced.epoch.0, advanced.seq);
        if self.world.log.lock().is_numbered(known) {
            return;
        }
        let mut tags = 0;
        for (at, tag) in TAGS.iter().enumerate() {
            if ask.removal.targets.contains(&Target::Tag(TagHash::of(tag))) {
                tags |= 1 << at;
            }
        }
        let all = ask.removal.targets.contains(&Target::Everything);
        let scope = if all { Scope::All } else { Scope::Tags(tags) };
        let hard = ask.removal.strength == Strength::Hard;
        let operation =
            Operation::Advance { scope, hard, epoch: advanced.epoch.0, number: advanced.seq };
        let message = announce.map(|announce| message::numbered(announce, advanced));
        self.note("", operation, Written::default(), message);
        let mut log = self.world.log.lock();
        let index = log.applied.len() - 1;
        log.numbers.insert(known, index);
    }
}

/// The version and the stamp of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) version: Option<u64>,
    pub(super) stamp: Option<Stamped>,
}

impl Written {
    fn of(record: &Record) -> Self {
        let envelope = Envelope::decode(&record.bytes);
        let version = envelope.as_ref().map(|envelope| envelope.version.0);
        let stamp = envelope.and_then(|envelope| {
            let (epoch, number) = (envelope.epoch?.0, envelope.stamp);
            Some(Stamped { epoch, number, is_near: true })
        });
        Self { version, stamp }
    }
}

/// The load that a record carries.
pub(super) fn load_of(record: &Record) -> Option<usize> {
    read_value(&record.bytes).map(|(_, load)| load)
}

pub(super) fn shown(read: &Result<Read, L2Error>) -> String {
    match read {
        Ok(read) => {
            let load = read.found.as_ref().and_then(|found| read_value(&found.bytes));
            format!("load {:?}, load lock {:?},", load.map(|(_, load)| load), read.load_lock)
        }
        Err(error) => format!("{error:?}"),
    }
}
