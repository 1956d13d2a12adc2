//! Types of every shape that serde knows, and values of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use proptest::prelude::*;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use crate::round_trip::product;
use crate::shapes::{Outcome, Shape, outcomes};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Newtype(pub(crate) u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OptionLike(pub(crate) Option<u32>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deep(Vec<Self>);

pub(crate) fn deep(levels: usize) -> Deep {
    (0..levels).fold(Deep(vec![]), |inner, _| Deep(vec![inner]))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair(pub(crate) u32, pub(crate) String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wrapped<T> {
    pub(crate) inner: T,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum External {
    Unit,
    Newtype(u32),
    Tuple(u8, char),
    Struct { a: Option<u8> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum Internal {
    Unit,
    Struct { a: Option<u8>, b: Vec<String> },
    Newtype(Wrapped<Option<u32>>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum InternalWide {
    Free,
    Paid { cents: u128 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum InternalMap {
    Map { map: BTreeMap<u32, u32> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
pub(crate) enum Adjacent {
    Unit,
    Newtype(u32),
    Struct { a: Option<u8> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Untagged {
    Number(u32),
    Text(String),
    Struct { a: u8 },
    Many(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ambiguous {
    Small(u32),
    Large(u64),
    Unnamed { a: u32 },
    Named { a: u32, b: Option<u32> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub(crate) a: u32,
    pub(crate) b: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wide {
    pub(crate) wide: u128,
}

/// A part of another struct's fields.
macro_rules! flattening {
    ($($name:ident: $rest:ty,)*) => {
        $(#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) id: u32,
            #[serde(flatten)]
            pub(crate) rest: $rest,
        })*
    };
}

flattening! {
    Flat: Rest,
    FlatMap: BTreeMap<String, u32>,
    FlatNumbers: BTreeMap<u32, u32>,
    FlatWide: Wide,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skips {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) a: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) b: Vec<u8>,
    pub(crate) c: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Defaults {
    #[serde(rename = "first", alias = "one")]
    pub(crate) a: u32,
    pub(crate) b: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { a: 7, b: 7 }
    }
}

/// Bytes that say that they are bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Blob, E> {
                Ok(Blob(v.to_vec()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Reader)
    }
}

/// Pairs that are written as a map; of two with one key the last is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Multi(pub(crate) Vec<(String, u32)>);

impl Serialize for Multi {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Multi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(BTreeMap::deserialize(deserializer)?.into_iter().collect()))
    }
}

/// A moment: a text where people read, a number elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stamp(pub(crate) i64);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{}Z", self.0))
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        text.trim_end_matches('Z').parse().map(Self).map_err(de::Error::custom)
    }
}

/// An id: a text where people read, its bytes elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Id(pub(crate) [u8; 16]);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{:x}", u128::from_be_bytes(self.0)))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let number = u128::from_str_radix(&text, 16).map_err(de::Error::custom)?;
            return Ok(Self(number.to_be_bytes()));
        }
        let Blob(bytes) = Blob::deserialize(deserializer)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("16 bytes are expected"))
    }
}

/// A decimal: it writes a text and reads whatever looks like a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decimal {
    pub(crate) mantissa: i64,
    pub(crate) scale: u32,
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}e-{}", self.mantissa, self.scale))
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Decimal, E> {
                Ok(Decimal { mantissa: v, scale: 0 })
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Decimal, E> {
                let (mantissa, scale) = v.split_once("e-").ok_or_else(|| E::custom("no scale"))?;
                let mantissa = mantissa.parse().map_err(E::custom)?;
                Ok(Decimal { mantissa, scale: scale.parse().map_err(E::custom)? })
            }
            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Decimal, A::Error> {
                Err(de::Error::custom("a map is no decimal"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A name that is trimmed when it is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Normalized(pub(crate) String);

impl<'de> Deserialize<'de> for Normalized {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.trim().to_owned()))
    }
}

/// A value of any of the types, shown, and what the codecs made of it.
#[derive(Clone)]
pub(crate) struct Drawn {
    shown: String,
    outcomes: [Outcome; 3],
}

impl Drawn {
    pub(crate) fn outcomes(&self) -> [Outcome; 3] {
        self.outcomes
    }
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn drawn<T: Shape>(values: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Drawn> {
    let draw = |v: T| Drawn { shown: format!("{v:?}"), outcomes: outcomes(&v) };
    values.prop_map(draw).boxed()
}

fn json() -> impl Strategy<Value = Value> {
    let floats = prop::num::f64::NORMAL.prop_map(Value::from);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        floats,
        ".{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn external() -> impl Strategy<Value = External> {
    prop_oneof![
        Just(External::Unit),
        any::<u32>().prop_map(External::Newtype),
        any::<(u8, char)>().prop_map(|(a, b)| External::Tuple(a, b)),
        any::<Option<u8>>().prop_map(|a| External::Struct { a }),
    ]
}

fn ambiguous() -> impl Strategy<Value = Ambiguous> {
    prop_oneof![
        any::<u32>().prop_map(Ambiguous::Small),
        prop_oneof![0..10_u64, any::<u64>()].prop_map(Ambiguous::Large),
        any::<u32>().prop_map(|a| Ambiguous::Unnamed { a }),
        any::<(u32, Option<u32>)>().prop_map(|(a, b)| Ambiguous::Named { a, b }),
    ]
}

fn internal() -> impl Strategy<Value = InternalWide> {
    prop_oneof![
        Just(InternalWide::Free),
        any::<u128>().prop_map(|cents| InternalWide::Paid { cents }),
    ]
}

/// Options, floats, enums and maps in one another.
pub(crate) fn any_value() -> impl Strategy<Value = Drawn> {
    let floats = || prop_oneof![prop::num::f64::ANY, prop::num::f64::NORMAL];
    prop_oneof![
        drawn(any::<Option<()>>()),
        drawn(any::<Vec<Option<Option<u8>>>>()),
        drawn(any::<(Option<Option<()>>, Option<u128>)>()),
        drawn(any::<Result<Option<()>, Option<char>>>()),
        drawn(any::<Vec<(i128, Option<String>)>>()),
        drawn(floats()),
        drawn(prop::num::f32::ANY),
        drawn(prop::collection::vec(prop::option::of(floats()), 0..4)),
        drawn(any::<HashMap<u32, Option<()>>>()),
        drawn(any::<HashMap<String, HashMap<i8, Option<bool>>>>()),
        drawn(any::<HashSet<i16>>()),
        drawn(json()),
        drawn(prop::option::of(json())),
        drawn(prop::collection::vec(prop::option::of(external()), 0..4)),
        drawn(prop::collection::btree_map(external(), any::<u8>(), 0..4)),
        drawn(ambiguous()),
        drawn(prop::collection::vec(ambiguous(), 0..3)),
        drawn(internal()),
        drawn(any::<Vec<u8>>().prop_map(Blob)),
        drawn(prop::collection::vec(("[ab]", any::<u32>()), 0..4).prop_map(|mut pairs| {
            // A map has no order.
            pairs.sort_by(|one, two| one.0.cmp(&two.0));
            Multi(pairs)
        })),
        drawn(any::<(Option<u32>, Vec<u8>, u32)>().prop_map(|(a, b, c)| Skips { a, b, c })),
        drawn(
            any::<(u32, u32, Option<String>)>()
                .prop_map(|(id, a, b)| Flat { id, rest: Rest { a, b } })
        ),
        drawn("[ a]{0,4}".prop_map(Normalized)),
        drawn(any::<[u8; 16]>().prop_map(Id)),
    ]
}
