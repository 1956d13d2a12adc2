//! What each serde codec makes of each shape of value: it comes back as it was, or is refused when it is
//! stored. The table of `docs/codecs.md` is what this prints.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crinkle_core::l2::{Codec, Json, MessagePack, Postcard};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::types::*;

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is read as it was.
    Kept,
    /// It is not stored.
    Refused,
    /// It was stored, and cannot be read.
    Lost,
    /// It was stored, and is read as another value.
    Wrong,
}

/// What a value must be to go through every codec.
pub(crate) trait Shape: Serialize + DeserializeOwned + PartialEq + Debug + 'static {}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static> Shape for T {}

fn outcome<T: Shape>(codec: &dyn Codec<T>, value: &T) -> Outcome {
    let Ok(bytes) = codec.encode(value) else { return Outcome::Refused };
    match codec.decode(&bytes) {
        Err(_) => Outcome::Lost,
        // A NaN equals nothing, but it looks like itself.
        Ok(back) if back == *value || format!("{back:?}") == format!("{value:?}") => Outcome::Kept,
        Ok(_) => Outcome::Wrong,
    }
}

/// MessagePack, Json and Postcard.
pub(crate) fn outcomes<T: Shape>(value: &T) -> [Outcome; 3] {
    [outcome(&MessagePack, value), outcome(&Json, value), outcome(&Postcard, value)]
}

/// A row of the table: a shape, and what became of all of its values.
struct Row {
    name: &'static str,
    outcomes: Vec<[Outcome; 3]>,
}

impl Row {
    fn cells(&self) -> String {
        let cell = |codec: usize| {
            let mut all: Vec<_> = self.outcomes.iter().map(|each| each[codec]).collect();
            all.dedup();
            match all[..] {
                [Outcome::Kept] => "kept".to_owned(),
                [Outcome::Refused] => "refused".to_owned(),
                _ => format!("{:?}", self.outcomes),
            }
        };
        format!("| {} | {} | {} | {} |", self.name, cell(0), cell(1), cell(2))
    }
}

macro_rules! rows {
    ($($name:literal: [$($value:expr),+ $(,)?],)*) => {
        vec![$(Row { name: $name, outcomes: vec![$(outcomes(&$value)),+] },)*]
    };
}

fn simple() -> Vec<Row> {
    rows! {
        "integers up to 64 bits, `bool`, `char`, `String`":
            [u64::MAX, i64::MIN, 0_u8, true, 'ß', '\0', String::new(), "tea".to_owned()],
        "`u128`, `i128`": [u128::MAX, i128::MIN, 5_u128, -5_i128],
        "`f32`, `f64` that are numbers":
            [0.1_f32, -0.0_f64, f64::MIN_POSITIVE, f64::MAX, f32::MIN, 5e-324_f64, 950.098_145_061_411_3_f64],
        "`NaN` and the infinities": [f64::NAN, f64::INFINITY, f32::NEG_INFINITY, vec![f64::NAN]],
        "`Some` of `NaN` or an infinity": [Some(f64::NAN), Some(f32::INFINITY)],
        "`()`, unit structs": [(), Unit, vec![(), ()], vec![Unit]],
        "`Some` of a unit struct": [Some(Unit), vec![Some(Unit), None]],
        "`Option` of a number, a text, a struct": [Some(7), None::<u32>, Some(String::new()), Some(product()), None::<Newtype>],
        "`Some(())`": [Some(()), vec![Some(()), None], Wrapped { inner: Some(()) }],
        "`Some(None)`": [Some(None::<u32>), Some(Some(None::<u32>)), vec![Some(None::<()>)], Some(OptionLike(None))],
        "`None` and `Some(Some(..))`": [None::<Option<u32>>, Some(Some(7)), Some(Some(Some(7)))],
        "newtypes, tuples, arrays": [Newtype(7), Pair(7, "tea".to_owned()), (7, (Some('c'), None::<u8>)), [1_u8; 4], OptionLike(Some(7))],
        "bytes, as a sequence and as bytes": [vec![0_u8, 255], Blob(vec![0, 255]), Blob(vec![])],
        "a value that nests 200 levels deep": [deep(200)],
        "sequences and sets": [vec![product()], BTreeSet::from([3, 1]), HashSet::from([1, 2, 3, 4, 5, 6, 7]), Vec::<u8>::new()],
        "`Result`, `Box`, ranges, `Duration`, `SystemTime`, IP addresses": [
            Ok::<u8, String>(1), Err::<u8, _>("no".to_owned()), Box::new(7), 1..5, Duration::from_nanos(1_000_000_001),
            SystemTime::UNIX_EPOCH + Duration::from_nanos(1), IpAddr::from([10, 0, 0, 1]), IpAddr::from([1_u16; 8]),
        ],
    }
}

fn maps() -> Vec<Row> {
    rows! {
        "maps with text, integer, `char` or `bool` keys": [
            BTreeMap::from([("a".to_owned(), 1)]), BTreeMap::from([(-7_i64, 1)]), BTreeMap::from([('c', 1)]),
            BTreeMap::from([(true, 1)]), BTreeMap::from([(u128::MAX, 1)]), HashMap::from([(1, "a".to_owned()), (2, String::new())]),
        ],
        "maps with unit variants as keys": [BTreeMap::from([(External::Unit, 1)])],
        "maps with tuples or other variants as keys":
            [BTreeMap::from([((1, 2), 3)]), BTreeMap::from([(External::Newtype(1), 2)])],
        "maps with `None` as a key": [BTreeMap::from([(None::<u8>, 2)])],
        "maps that write a key twice and keep one": [Multi(vec![("a".to_owned(), 1), ("a".to_owned(), 2)])],
        "`serde_json::Value`": [Value::Null, serde_json::json!({"a": [1, -1, 1.5, null, "x"]})],
        "`Some(Value::Null)`": [Some(Value::Null)],
    }
}

fn enums() -> Vec<Row> {
    rows! {
        "enums": [External::Unit, External::Newtype(1), External::Tuple(1, 'c'), External::Struct { a: Some(1) }],
        "enums with `tag`": [Internal::Unit, Internal::Struct { a: Some(1), b: vec!["b".to_owned()] }, Internal::Newtype(Wrapped { inner: Some(1) })],
        "a `u128` in an enum with `tag`": [InternalWide::Paid { cents: 5 }, InternalWide::Paid { cents: u128::MAX }],
        "the variants of that enum without the `u128`": [InternalWide::Free],
        "a map with integer keys in an enum with `tag`": [InternalMap::Map { map: BTreeMap::from([(1, 2)]) }],
        "enums with `tag` and `content`": [Adjacent::Unit, Adjacent::Newtype(1), Adjacent::Struct { a: None }],
        "`untagged` enums": [Untagged::Number(7), Untagged::Text("x".to_owned()), Untagged::Struct { a: 1 }, Untagged::Many(vec![1])],
        "`untagged` enums whose earlier variant fits, too": [Ambiguous::Large(5), Ambiguous::Named { a: 1, b: None }],
    }
}

fn attributes() -> Vec<Row> {
    rows! {
        "`flatten`": [Flat { id: 1, rest: Rest { a: 1, b: None } }, FlatMap { id: 1, rest: BTreeMap::from([("a".to_owned(), 1)]) }],
        "`flatten` of a map with integer keys": [FlatNumbers { id: 1, rest: BTreeMap::from([(1, 1)]) }],
        "a `u128` behind `flatten`": [FlatWide { id: 1, rest: Wide { wide: 5 } }],
        "`skip_serializing_if` with `default`, when nothing is skipped": [Skips { a: Some(1), b: vec![1], c: 1 }],
        "`skip_serializing_if` with `default`, when something is skipped": [Skips { a: None, b: vec![], c: 1 }],
        "`default`, `rename`, `alias`": [Defaults { a: 1, b: 2 }, Defaults { a: 0, b: 0 }],
        "times and numbers that write a text, or a number if the codec is binary": [Stamp(1_700_000_000), Id([7; 16])],
        "decimals and others that read any type": [Decimal { mantissa: -199, scale: 2 }],
        "what reads as another value by its own impl": [Normalized("  A".to_owned())],
    }
}

fn table() -> Vec<String> {
    let rows = simple().into_iter().chain(maps()).chain(enums()).chain(attributes());
    rows.map(|row| row.cells()).collect()
}

/// Kept or refused, never anything else; and the page says which.
#[test]
fn every_shape_is_kept_or_refused_as_the_page_says() {
    let page = include_str!("../../docs/codecs.md");
    let written: Vec<_> = page
        .lines()
        .skip_while(|line| !line.starts_with("| shape |"))
        .skip(2)
        .take_while(|l| l.starts_with('|'))
        .collect();
    let table = table();
    assert!(written == table, "docs/codecs.md is to have:\n{}", table.join("\n"));
}

/// The suite for codecs of one's own says of ours what the table says, and finds one that does not check.
#[test]
fn the_contract_of_codecs_holds_for_ours_and_not_for_one_that_does_not_look() {
    use crinkle_testkit::contract::codec;
    let options = [Some(()), None];
    codec(&MessagePack, &options);
    codec(&Json, &options);
    codec(&Postcard, &options);
    codec(&MessagePack, &[product()]);
    codec(&Postcard, &[Untagged::Number(7), Untagged::Text("x".to_owned())]);
    assert!(std::panic::catch_unwind(|| codec(&Unchecked, &options)).is_err());
}

#[derive(Clone, Copy, Debug)]
struct Unchecked;

impl Codec<Option<()>> for Unchecked {
    fn encode(&self, value: &Option<()>) -> Result<bytes::Bytes, crinkle_core::BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &bytes::Bytes) -> Result<Option<()>, crinkle_core::BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

proptest! {
    #![proptest_config(crate::seed::config(256))]

    #[test]
    fn any_value_is_kept_or_refused_by_every_codec(value in any_value()) {
        for (codec, outcome) in ["MessagePack", "Json", "Postcard"].iter().zip(value.outcomes()) {
            prop_assert!(matches!(outcome, Outcome::Kept | Outcome::Refused), "{codec}: {outcome:?}");
        }
    }
}
