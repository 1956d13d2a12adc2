//! The map of slots to the servers of a cluster.

use std::sync::Arc;

use redis::Value;

/// The number of slots.
const SLOTS: u16 = 16_384;

/// Host and port of a server.
pub type Address = (Arc<str>, u16);

/// The name of a server of a cluster.
#[must_use]
pub fn server_name((host, port): &Address) -> Arc<str> {
    format!("{host}:{port}").into()
}

/// The slot of a key. Only its hash tag counts, the text between its first braces, unless that is
/// empty.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let len = key[open..].iter().position(|byte| *byte == b'}')?;
        (len > 0).then(|| &key[open..open + len])
    };
    crc16::State::<crc16::XMODEM>::calculate(tag().unwrap_or(key)) % SLOTS
}

/// The slots and their servers, as one server reports them.
#[derive(Debug)]
pub(crate) struct Slots {
    /// First and last slot, the primary and its replicas; in order.
    ranges: Vec<(u16, u16, Vec<Address>)>,
}

impl Slots {
    /// Reads the reply to `CLUSTER SLOTS`; `None` if it names no server.
    pub(crate) fn read(asked: &Address, reply: Value) -> Option<Self> {
        let Value::Array(rows) = reply else { return None };
        let mut ranges: Vec<_> = rows.iter().filter_map(|row| range(asked, row)).collect();
        ranges.sort_unstable();
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// The primary of a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Address> {
        self.of(slot)?.first()
    }

    /// The primary of a slot and its replicas.
    fn of(&self, slot: u16) -> Option<&[Address]> {
        let place = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, servers) = self.ranges.get(place)?;
        (*first <= slot).then_some(servers)
    }

    /// Whether each slot has the same primary in both; replicas may differ.
    pub(crate) fn has_owners_of(&self, other: &Self) -> bool {
        bounds([self, other]).into_iter().all(|slot| self.owner(slot) == other.owner(slot))
    }

    /// Combines several views: each slot gets the primary that most views name. On a tie, the known
    /// primary wins, or else the first.
    ///
    /// # Panics
    ///
    /// If there are no views.
    pub(crate) fn of_most(views: &[Arc<Self>], known: Option<&Self>) -> Self {
        let bounds = bounds(views.iter().map(|view| &**view).chain(known));
        let ends = bounds.iter().skip(1).copied().chain([SLOTS]);
        let ranges = bounds.iter().zip(ends).filter_map(|(first, end)| {
            let votes = |owner: Option<&Address>| {
                views.iter().filter(|view| view.owner(*first) == owner).count()
            };
            let known = known.and_then(|known| known.owner(*first));
            let rank = |view: &&Arc<Self>| {
                let owner = view.owner(*first);
                (votes(owner), owner.is_some() && owner == known)
            };
            // On a tie the first wins: `max_by_key` takes the last.
            let most = views.iter().rev().max_by_key(rank)?;
            Some((*first, end - 1, most.of(*first)?.to_vec()))
        });
        Self { ranges: ranges.collect() }
    }

    /// All primaries, in order.
    pub(crate) fn primaries(&self) -> Vec<Address> {
        sorted(self.ranges.iter().filter_map(|(_, _, servers)| servers.first()))
    }

    /// The replicas of a primary.
    pub(crate) fn replicas(&self, primary: &Address) -> Vec<Address> {
        let of = |(_, _, servers): &&(_, _, Vec<Address>)| servers.first() == Some(primary);
        self.ranges.iter().find(of).map_or_else(Vec::new, |(_, _, servers)| servers[1..].to_vec())
    }

    /// All servers, in order.
    pub(crate) fn servers(&self) -> Vec<Address> {
        sorted(self.ranges.iter().flat_map(|(_, _, servers)| servers))
    }
}

/// The first slot of each stretch in which no view changes the owner, in order.
fn bounds<'a>(views: impl IntoIterator<Item = &'a Slots>) -> Vec<u16> {
    let ranges = views.into_iter().flat_map(|view| &view.ranges);
    let mut bounds: Vec<_> =
        ranges.flat_map(|(first, last, _)| [*first, last.saturating_add(1)]).collect();
    bounds.push(0);
    bounds.retain(|slot| *slot < SLOTS);
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

fn sorted<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<Address> {
    let mut addresses: Vec<_> = addresses.cloned().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn range(asked: &Address, row: &Value) -> Option<(u16, u16, Vec<Address>)> {
    let Value::Array(row) = row else { return None };
    let [Value::Int(first), Value::Int(last), servers @ ..] = &row[..] else { return None };
    let servers: Vec<_> = servers.iter().filter_map(|server| address(asked, server)).collect();
    (!servers.is_empty()).then_some(())?;
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, servers))
}

/// Reads a server's address. A server that does not know its own name is at the address that was
/// asked.
fn address(asked: &Address, server: &Value) -> Option<Address> {
    let Value::Array(server) = server else { return None };
    let [host, Value::Int(port), ..] = &server[..] else { return None };
    let host = match host {
        Value::BulkString(host) if host == b"?" => return None,
        Value::BulkString(host) if !host.is_empty() => Arc::from(std::str::from_utf8(host).ok()?),
        _ => Arc::clone(&asked.0),
    };
    Some((host, u16::try_from(*port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_of_its_hash_tag() {
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo{user}bar"), slot(b"user"));
        assert_eq!(
            slot(b"a{}b{user}"),
            crc16::State::<crc16::XMODEM>::calculate(b"a{}b{user}") % SLOTS
        );
        assert_eq!(slot(b"{{a}}"), slot(b"{a"));
    }

    fn server(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)])
    }

    #[test]
    fn a_slot_belongs_to_the_first_server_of_its_range() {
        let row = |first, last, servers: [Value; 2]| {
            let ends = [Value::Int(first), Value::Int(last)];
            Value::Array(ends.into_iter().chain(servers).collect())
        };
        let rows = vec![
            row(100, 200, [server("b", 2), server("?", 3)]),
            row(0, 50, [server("", 1), server("c", 4)]),
        ];
        let asked: Address = (Arc::from("me"), 9);
        let slots = Slots::read(&asked, Value::Array(rows)).expect("slots");
        let owner = |slot| slots.owner(slot).map(|(host, port)| (&**host, *port));
        assert_eq!(owner(0), Some(("me", 1)));
        assert_eq!(owner(50), Some(("me", 1)));
        assert_eq!(owner(51), None);
        assert_eq!(owner(200), Some(("b", 2)));
        assert_eq!(owner(201), None);
        assert_eq!((slots.primaries().len(), slots.servers().len()), (2, 3));
    }

    fn view(ranges: &[(u16, u16, &str)]) -> Arc<Slots> {
        let range = |(first, last, host): &(u16, u16, &str)| {
            (*first, *last, vec![(Arc::from(*host), 1), (Arc::from("replica"), 1)])
        };
        Arc::new(Slots { ranges: ranges.iter().map(range).collect() })
    }

    #[test]
    fn the_owner_that_most_servers_name_is_believed_no_matter_which_was_asked_first() {
        let old = view(&[(0, 99, "old"), (100, 16_383, "b")]);
        let new = view(&[(0, 99, "new"), (100, 16_383, "b")]);
        // The same owners, in other ranges.
        let pieces = view(&[(0, 50, "new"), (51, 99, "new"), (100, 16_383, "b")]);
        let alone = view(&[(0, 99, "old")]);
        assert!(new.has_owners_of(&pieces) && !new.has_owners_of(&old));
        for views in [[&old, &new, &pieces], [&new, &alone, &pieces], [&alone, &new, &new]] {
            let believed = Slots::of_most(&views.map(Arc::clone), None);
            assert!(believed.has_owners_of(&new), "{views:?}: {believed:?}");
        }
        // Each slot counts separately: a view may be old in one and new in another.
        let moved = view(&[(0, 99, "old"), (100, 16_383, "c")]);
        let believed = Slots::of_most(&[&old, &new, &moved].map(Arc::clone), None);
        assert!(believed.has_owners_of(&old), "{believed:?}");
        assert_eq!(believed.replicas(&(Arc::from("b"), 1)).len(), 1);
    }

    #[test]
    fn of_as_many_votes_what_is_known_is_believed_or_else_the_first() {
        let (one, two) = (view(&[(0, 16_383, "one")]), view(&[(0, 16_383, "two")]));
        for (first, second) in [(&one, &two), (&two, &one)] {
            let views = [Arc::clone(first), Arc::clone(second)];
            assert!(Slots::of_most(&views, None).has_owners_of(first));
            assert!(Slots::of_most(&views, Some(&one)).has_owners_of(&one));
            // Each slot counts separately; an owner without a vote is ignored.
            let known = view(&[(0, 99, "two"), (100, 199, "three"), (200, 16_383, "one")]);
            let believed = Slots::of_most(&views, Some(&known));
            let owner = |slot| believed.owner(slot).map(|(host, _)| &**host);
            assert_eq!((owner(99), owner(200)), (Some("two"), Some("one")));
            assert_eq!(owner(100), first.owner(100).map(|(host, _)| &**host));
        }
        let views = [&two, &one, &two].map(Arc::clone);
        assert!(
            Slots::of_most(&views, Some(&one)).has_owners_of(&two),
            "a majority beats the known owner"
        );
    }

    #[test]
    fn a_server_that_knows_of_nobody_is_no_answer() {
        let asked: Address = (Arc::from("me"), 9);
        assert!(Slots::read(&asked, Value::Array(Vec::new())).is_none());
        assert!(Slots::read(&asked, Value::Nil).is_none());
    }
}
