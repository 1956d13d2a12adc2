//! What can happen, at random.

use std::time::Duration;

use crinkle_core::{EntryOptions, FailSafe};
use proptest::prelude::*;

pub(crate) const NODES: usize = 2;
pub(crate) const KEYS: u8 = 4;
pub(crate) const TAGS: u8 = 3;

/// The options of a call that stores. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) duration: u64,
    pub(crate) l1_duration: Option<u64>,
    /// How long, and the throttle.
    pub(crate) fail_safe: Option<(u64, u64)>,
    /// One bit for each.
    pub(crate) tags: u8,
    pub(crate) skip_l1: bool,
}

impl Call {
    pub(crate) fn options(&self) -> EntryOptions {
        let ms = Duration::from_millis;
        let safe = |(most, throttle)| FailSafe::for_up_to(ms(most)).throttle(ms(throttle));
        EntryOptions::new(ms(self.duration))
            .l1_duration(self.l1_duration.map(ms))
            .fail_safe(self.fail_safe.map(safe))
            .skip_l1(self.skip_l1)
    }
}

/// The names of some tags.
pub(crate) fn tags(mask: u8) -> Vec<String> {
    (0..TAGS).filter(|tag| mask >> tag & 1 == 1).map(|tag| format!("t{tag}")).collect()
}

/// How a plain read reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) stale: bool,
    pub(crate) strict: bool,
    pub(crate) skip_l1: bool,
}

/// What happens to a reserved key, elsewhere, before it is set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meanwhile {
    Nothing,
    Removed,
    Tag(u8),
}

/// One step, on one node.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Get(u8, Read),
    GetMany(Vec<u8>, Read),
    Contains(u8),
    Load { key: u8, call: Call, fails: bool },
    LoadMany { keys: Vec<u8>, call: Call, fails: bool },
    Set(u8, Call),
    SetMany(Vec<u8>, Call),
    SetReserved(u8, Meanwhile, Call),
    Remove(u8),
    RemoveMany(Vec<u8>),
    RemoveAndTags { keys: Vec<u8>, tags: u8 },
    Expire(u8),
    Tags { tags: u8, hard: bool },
    Clear { hard: bool },
    Pass(u64),
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let life = || (1_u64..30).prop_map(|seconds| seconds * 1000);
    let safe = (prop_oneof![Just(60_000_u64), Just(120_000)], (2_u64..20).prop_map(|s| s * 1000));
    let short = prop::option::weighted(0.2, life());
    let skip = prop::bool::weighted(0.1);
    let call = (life(), short, prop::option::weighted(0.7, safe), 0..1_u8 << TAGS, skip);
    call.prop_map(|(duration, l1_duration, fail_safe, tags, skip_l1)| Call {
        duration,
        l1_duration,
        fail_safe,
        tags,
        skip_l1,
    })
}

fn read() -> impl Strategy<Value = Read> {
    let rarely = || prop::bool::weighted(0.15);
    let read = (any::<bool>(), rarely(), rarely());
    read.prop_map(|(stale, strict, skip_l1)| Read { stale, strict, skip_l1 })
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS;
    let keys = || prop::collection::vec(0..KEYS, 0..6);
    let fails = || prop::bool::weighted(0.4);
    let meanwhile = prop_oneof![
        Just(Meanwhile::Nothing),
        Just(Meanwhile::Removed),
        (0..TAGS).prop_map(Meanwhile::Tag)
    ];
    prop_oneof![
        8 => (key(), read()).prop_map(|(key, read)| Op::Get(key, read)),
        3 => (keys(), read()).prop_map(|(keys, read)| Op::GetMany(keys, read)),
        2 => key().prop_map(Op::Contains),
        12 => (key(), call(), fails()).prop_map(|(key, call, fails)| Op::Load { key, call, fails }),
        4 => (keys(), call(), fails())
            .prop_map(|(keys, call, fails)| Op::LoadMany { keys, call, fails }),
        4 => (key(), call()).prop_map(|(key, call)| Op::Set(key, call)),
        1 => (keys(), call()).prop_map(|(keys, call)| Op::SetMany(keys, call)),
        2 => (key(), meanwhile, call())
            .prop_map(|(key, meanwhile, call)| Op::SetReserved(key, meanwhile, call)),
        2 => key().prop_map(Op::Remove),
        1 => keys().prop_map(Op::RemoveMany),
        2 => (prop::collection::vec(0..KEYS, 1..3), 0..1_u8 << TAGS)
            .prop_map(|(keys, tags)| Op::RemoveAndTags { keys, tags }),
        3 => key().prop_map(Op::Expire),
        3 => (1..1_u8 << TAGS, any::<bool>()).prop_map(|(tags, hard)| Op::Tags { tags, hard }),
        1 => any::<bool>().prop_map(|hard| Op::Clear { hard }),
        8 => (1_u64..40).prop_map(|seconds| Op::Pass(seconds * 500)),
        1 => Just(Op::Restart),
    ]
}

/// A history: each step with its node.
pub(crate) fn history() -> impl Strategy<Value = Vec<(usize, Op)>> {
    prop::collection::vec((0..NODES, op()), 1..60)
}
