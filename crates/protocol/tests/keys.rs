//! Laws of records, flights, verdicts and publishers.

mod seed;

use crinkle_protocol::flight::{FlightId, KeyState, Received, Registration};
use crinkle_protocol::ledger::Levels;
use crinkle_protocol::record::{self, Head, LoadLockRequest, Put, Release};
use crinkle_protocol::resync::Peers;
use crinkle_protocol::validity::{EntryState, Knowledge, TagLevels, Verdict, judge};
use crinkle_protocol::{PublisherId, Version};
use proptest::prelude::*;

/// Returns the same head under other versions.
fn renamed(head: Head, name: impl Fn(Version) -> Version) -> Head {
    match head {
        Head::LoadLock(by) => Head::LoadLock(name(by)),
        Head::Value { version, expired, refresh } => {
            let refresh = refresh.map(|(by, until)| (name(by), until));
            Head::Value { version: name(version), expired, refresh }
        }
    }
}

fn version() -> impl Strategy<Value = Version> {
    (1..4_u64).prop_map(Version)
}

fn head() -> impl Strategy<Value = Option<Head>> {
    let value = (version(), any::<bool>(), prop::option::of((version(), 0..4_u64)));
    prop::option::of(prop_oneof![
        version().prop_map(Head::LoadLock),
        value.prop_map(|(version, expired, refresh)| Head::Value { version, expired, refresh }),
    ])
}

fn levels() -> impl Strategy<Value = Levels> {
    (0..4_u64, 0..4_u64).prop_map(|(soft, hard)| Levels { soft, hard })
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fresh => 0,
        Verdict::Unverified => 1,
        Verdict::Stale(_) => 2,
        Verdict::Hidden(_) => 3,
    }
}

fn state(stamp: u64, origin: u64) -> EntryState {
    EntryState {
        epoch: None,
        stamp,
        origin,
        session: 0,
        verified_at: 0,
        logical: 9,
        physical: 9,
        expired: false,
    }
}

fn knowledge(floor: Levels, pending: Levels, suspect: bool) -> Knowledge {
    Knowledge {
        epoch: None,
        floor,
        pending,
        session: 0,
        coherent_until: 9,
        coherence_ttl: 9,
        suspect,
    }
}

proptest! {
    #![proptest_config(seed::config(256))]

    #[test]
    fn a_put_replaces_only_what_was_expected(head in head(), expected in version()) {
        let same = head.is_some_and(|head| head.version() == expected);
        prop_assert_eq!(record::put(head, expected) == Put::Stored, same);
    }

    /// S7: the decisions do not depend on the values or the order of the versions.
    #[test]
    fn versions_are_compared_for_equality_only(head in head(), expected in version(), stale: bool,
        names in Just((1..=8_u64).collect::<Vec<_>>()).prop_shuffle(), id in 1..8_u64, now in 0..4_u64,
        replace in prop::option::of(version()), hidden in prop::option::of(version()),
        received in prop::collection::vec(version(), 0..3)) {
        let name = |version: Version| Version(names[usize::try_from(version.0).map_or(0, |at| at - 1)] << 60);
        let other = head.map(|head| renamed(head, name));
        prop_assert_eq!(record::put(other, name(expected)), record::put(head, expected));
        let (id, new) = (Version(id), Version(8));
        let ask = LoadLockRequest { id, ttl_ms: 1, replace, hidden };
        let its = LoadLockRequest { id: name(id), ttl_ms: 1, replace: replace.map(name), hidden: hidden.map(name) };
        let (one, two) = (record::read(head, stale, Some(ask), now), record::read(other, stale, Some(its), now));
        prop_assert_eq!(two.write, one.write.map(|head| renamed(head, name)));
        prop_assert_eq!(two.load_lock, match one.load_lock {
            record::LoadLock::HeldBy(by) => record::LoadLock::HeldBy(name(by)),
            same => same,
        });
        let expired = record::expire(head, new).map(|head| renamed(head, name));
        prop_assert_eq!(record::expire(other, name(new)), expired);
        let renewed = record::renew(head, id, 9).map(|head| renamed(head, name));
        prop_assert_eq!(record::renew(other, name(id), 9), renewed);
        prop_assert_eq!(record::release(other, name(id)), match record::release(head, id) {
            Release::Clear(head) => Release::Clear(renamed(head, name)),
            same => same,
        });
        let end = |name: &dyn Fn(Version) -> Version| {
            let mut key = KeyState::default();
            let _ = key.register(FlightId(1));
            received.iter().for_each(|version| key.receive(name(*version)));
            key.end(FlightId(1)).allows(name(expected))
        };
        prop_assert_eq!(end(&name), end(&|version| version));
    }

    #[test]
    fn a_read_never_changes_a_version(head in head(), stale: bool, id in 5..7_u64, now in 0..4_u64,
        replace in prop::option::of(version()), hidden in prop::option::of(version())) {
        let ask = LoadLockRequest { id: Version(id), ttl_ms: 1, replace, hidden };
        let decision = record::read(head, stale, Some(ask), now);
        if let (Some(Head::Value { version, expired, .. }), Some(write)) = (head, decision.write) {
            match write {
                Head::Value { version: new, expired: mark, .. } => {
                    prop_assert_eq!((new, mark), (version, expired));
                }
                Head::LoadLock(_) => prop_assert!(false, "a value became a load lock"),
            }
        }
        prop_assert!(record::read(head, stale, None, now).write.is_none());
    }

    #[test]
    fn only_the_holder_releases_and_renews(head in head(), id in version()) {
        let holds = match head {
            Some(Head::LoadLock(by)) => by == id,
            Some(Head::Value { refresh, .. }) => refresh.is_some_and(|(by, _)| by == id),
            None => false,
        };
        prop_assert_eq!(record::release(head, id) != Release::Nothing, holds);
        prop_assert_eq!(record::renew(head, id, 9).is_some(), holds);
        let after = record::expire(head, Version(8));
        prop_assert!(after.is_none_or(|head| head.version() == Version(8)));
        prop_assert!(after.is_none_or(|head| record::release(Some(head), id) == Release::Nothing));
    }

    #[test]
    fn more_barriers_never_serve_more(stamp in 0..4_u64, origin in 0..4_u64, floor in levels(),
        pending in levels(), tag in levels(), more in levels(), more_pending in levels(), suspect: bool) {
        let entry = state(stamp, origin);
        let few = TagLevels { levels: tag, pending };
        let mut many = few;
        many.levels.soft = many.levels.soft.max(more.soft);
        many.levels.hard = many.levels.hard.max(more.hard);
        many.pending.soft = many.pending.soft.max(more_pending.soft);
        many.pending.hard = many.pending.hard.max(more_pending.hard);
        let node = knowledge(floor, pending, suspect);
        let before = judge(&entry, &node, std::iter::once(few), 0);
        let after = judge(&entry, &node, std::iter::once(many), 0);
        prop_assert!(rank(after) >= rank(before));
        let soft = TagLevels { levels: Levels { soft: 3, hard: 0 }, pending: Levels::default() };
        let hard = TagLevels { levels: Levels { soft: 0, hard: 3 }, pending: Levels::default() };
        let of = |tag| rank(judge(&entry, &node, std::iter::once(tag), 0));
        prop_assert!(of(hard) >= of(soft));
    }

    #[test]
    fn nobody_joins_across_an_invalidation(steps in prop::collection::vec((0..4_u8, version()), 0..40)) {
        let mut key = KeyState::default();
        let mut running: Vec<(u64, bool, Vec<Version>)> = Vec::new();
        for (at, (what, version)) in steps.into_iter().enumerate() {
            let id = at as u64;
            match what {
                0 | 1 => match key.register(FlightId(id)) {
                    Registration::Lead => running.push((id, false, Vec::new())),
                    Registration::Join(young) => {
                        let fenced = running.iter().any(|(id, fenced, _)| *id == young.0 && *fenced);
                        prop_assert!(!fenced, "F1");
                    }
                    Registration::Wait(older) => {
                        prop_assert!(running.iter().any(|(id, ..)| *id == older.0));
                    }
                },
                2 => {
                    key.receive(version);
                    for (_, fenced, received) in &mut running {
                        *fenced = true;
                        received.push(version);
                    }
                }
                _ => {
                    if let Some((id, _, received)) = running.pop() {
                        let end = key.end(FlightId(id));
                        let allowed = received.iter().all(|h| *h == version);
                        prop_assert_eq!(end.allows(version), allowed, "F3");
                        prop_assert_eq!(key.end(FlightId(id)), Received::Many);
                    }
                }
            }
            prop_assert!(running.len() <= 2, "F2");
        }
    }

    #[test]
    fn overlapping_writes_poison_each_other(count in 2..5_u64) {
        let mut key = KeyState::default();
        for id in 0..count {
            key.begin(FlightId(id), Some(Version(id)));
        }
        for id in 0..count {
            prop_assert!(!key.end(FlightId(id)).allows(Version(id)), "F4");
        }
        prop_assert!(key.is_idle());
    }

    #[test]
    fn a_loss_is_noticed_and_nothing_else(sent in 1..60_u64, lost in prop::collection::btree_set(1..60_u64, 0..3),
        order in any::<prop::sample::Index>()) {
        let mut peers = Peers::default();
        let mut arriving: Vec<u64> = (1..=sent).filter(|seq| !lost.contains(seq)).collect();
        let middle = order.index(arriving.len() + 1);
        arriving.rotate_left(middle);
        for seq in arriving {
            peers.received(PublisherId(1), seq, 10);
            prop_assert!(!peers.take_loss(9), "within its grace a hole is no loss");
        }
        peers.sent(PublisherId(1), sent + 1, 10);
        let missing = lost.iter().any(|seq| *seq <= sent);
        prop_assert_eq!(peers.take_loss(10), missing);
        prop_assert!(!peers.take_loss(10), "asked once");
    }
}

/// A load that begins during a write may have read what the write replaced.
#[test]
fn the_reply_of_a_write_fences_what_began_during_it() {
    let mut key = KeyState::default();
    key.begin(FlightId(1), Some(Version(7)));
    assert_eq!(key.register(FlightId(2)), Registration::Lead);
    assert_eq!(
        key.register(FlightId(3)),
        Registration::Join(FlightId(2)),
        "the write has not returned"
    );
    assert_eq!(key.end(FlightId(1)), Received::Nothing);
    assert_eq!(key.register(FlightId(4)), Registration::Lead, "it came after the write");
    assert_eq!(key.end(FlightId(2)), Received::One(Version(7)));
}

#[test]
fn junk_numbers_do_not_panic_and_are_one_resync() {
    let mut peers = Peers::default();
    for seq in [u64::MAX, 0, 1, u64::MAX, 300, u64::MAX - 1] {
        peers.received(PublisherId(1), seq, 10);
    }
    assert!(peers.take_loss(0));
    assert!(!peers.take_loss(100));
}
