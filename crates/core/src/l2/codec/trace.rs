//! Checks that a decoded value equals the encoded one, by what both show to serde.
//!
//! A value is hashed as the calls that its `Serialize` makes. These distinguish what a format may
//! write alike: `Some(())` and `None`, a unit and an absent value, two variants of an untagged
//! enum.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::BoxError;

/// Refuses a value that its bytes do not decode to. For codecs over a serde format: call it at the
/// end of `encode`. `human_readable` is the property of that name of the format's serializer.
///
/// It does not see what the type itself leaves out (`#[serde(skip)]`). The order of elements in
/// maps and sequences may differ.
///
/// # Errors
///
/// If `decoded` is an error, or another value.
pub fn check_round_trip<T: Serialize>(
    value: &T,
    decoded: Result<T, impl Into<BoxError>>,
    human_readable: bool,
) -> Result<(), BoxError> {
    let what = match decoded {
        Err(_) => "cannot be decoded",
        Ok(decoded) => {
            let trace = Trace { human_readable };
            if value.serialize(trace)? == decoded.serialize(trace)? {
                return Ok(());
            }
            "decodes to another value"
        }
    };
    let name = std::any::type_name::<T>();
    Err(format!(
        "what this codec writes for this value of type {name} {what}, so it is not stored in L2; \
         use another shape or codec (the page \"Codecs and compression\" lists what each keeps)"
    )
    .into())
}

/// Hashes a value. Allocates nothing, and only the value's own `Serialize` can fail.
#[derive(Clone, Copy, Debug)]
struct Trace {
    human_readable: bool,
}

/// The call made. Numbers of different widths differ: they are variants of an untagged enum.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
enum Call {
    Bool = 1,
    Signed8,
    Signed16,
    Signed32,
    Signed64,
    Signed128,
    Unsigned8,
    Unsigned16,
    Unsigned32,
    Unsigned64,
    Unsigned128,
    Float32,
    Float64,
    Nan,
    Char,
    Text,
    Bytes,
    None,
    Some,
    Unit,
    Newtype,
    Variant,
    Sequence,
    Tuple,
    Struct,
    Map,
}

fn leaf(call: Call, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, call as u64)
}

fn pair(call: Call, a: u64, b: u64) -> u64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&a.to_be_bytes());
    both[8..].copy_from_slice(&b.to_be_bytes());
    leaf(call, &both)
}

fn variant(index: u32, name: &str) -> u64 {
    pair(Call::Variant, u64::from(index), leaf(Call::Text, name.as_bytes()))
}

macro_rules! numbers {
    ($($method:ident($number:ty) = $call:ident,)*) => {
        $(fn $method(self, v: $number) -> Result<u64, Failed> {
            Ok(leaf(Call::$call, &v.to_be_bytes()))
        })*
    };
}

impl Serializer for Trace {
    type Ok = u64;
    type Error = Failed;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    numbers! {
        serialize_i8(i8) = Signed8,
        serialize_i16(i16) = Signed16,
        serialize_i32(i32) = Signed32,
        serialize_i64(i64) = Signed64,
        serialize_i128(i128) = Signed128,
        serialize_u8(u8) = Unsigned8,
        serialize_u16(u16) = Unsigned16,
        serialize_u32(u32) = Unsigned32,
        serialize_u64(u64) = Unsigned64,
        serialize_u128(u128) = Unsigned128,
    }

    fn serialize_bool(self, v: bool) -> Result<u64, Failed> {
        Ok(leaf(Call::Bool, &[u8::from(v)]))
    }

    fn serialize_f32(self, v: f32) -> Result<u64, Failed> {
        Ok(if v.is_nan() { Call::Nan as u64 } else { leaf(Call::Float32, &v.to_be_bytes()) })
    }

    fn serialize_f64(self, v: f64) -> Result<u64, Failed> {
        Ok(if v.is_nan() { Call::Nan as u64 } else { leaf(Call::Float64, &v.to_be_bytes()) })
    }

    fn serialize_char(self, v: char) -> Result<u64, Failed> {
        Ok(leaf(Call::Char, &u32::from(v).to_be_bytes()))
    }

    fn serialize_str(self, v: &str) -> Result<u64, Failed> {
        Ok(leaf(Call::Text, v.as_bytes()))
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<u64, Failed> {
        Ok(leaf(Call::Bytes, v))
    }

    fn serialize_none(self) -> Result<u64, Failed> {
        Ok(leaf(Call::None, &[]))
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<u64, Failed> {
        Ok(pair(Call::Some, value.serialize(self)?, 0))
    }

    fn serialize_unit(self) -> Result<u64, Failed> {
        Ok(leaf(Call::Unit, &[]))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u64, Failed> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
    ) -> Result<u64, Failed> {
        Ok(variant(index, name))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<u64, Failed> {
        Ok(pair(Call::Newtype, value.serialize(self)?, 0))
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<u64, Failed> {
        Ok(pair(Call::Newtype, variant(index, name), value.serialize(self)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Sequence, 0))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Tuple, 0))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Tuple, 0))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Tuple, variant(index, name)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Map, 0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Struct, 0))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts, Failed> {
        Ok(Parts::new(self, Call::Struct, variant(index, name)))
    }

    fn is_human_readable(&self) -> bool {
        self.human_readable
    }
}

/// The parts of a value so far. A tuple hashes positions; other parts are added up, since a hash
/// set or map shows its elements in any order.
#[derive(Debug)]
struct Parts {
    trace: Trace,
    call: Call,
    hash: u64,
    count: u64,
    key: u64,
}

impl Parts {
    fn new(trace: Trace, call: Call, of: u64) -> Self {
        Self { trace, call, hash: of, count: 0, key: 0 }
    }

    fn add(&mut self, name: u64, value: &(impl ?Sized + Serialize)) -> Result<(), Failed> {
        let place = if let Call::Tuple = self.call { self.count } else { name };
        let part = pair(self.call, place, value.serialize(self.trace)?);
        self.hash = self.hash.wrapping_add(part);
        self.count += 1;
        Ok(())
    }

    fn done(&self) -> u64 {
        pair(self.call, self.hash, self.count)
    }
}

macro_rules! in_order {
    ($($kind:ident::$method:ident,)*) => {
        $(impl ser::$kind for Parts {
            type Ok = u64;
            type Error = Failed;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Failed> {
                self.add(0, value)
            }

            fn end(self) -> Result<u64, Failed> {
                Ok(self.done())
            }
        })*
    };
}

macro_rules! by_name {
    ($($kind:ident,)*) => {
        $(impl ser::$kind for Parts {
            type Ok = u64;
            type Error = Failed;

            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Failed> {
                self.add(leaf(Call::Text, name.as_bytes()), value)
            }

            fn end(self) -> Result<u64, Failed> {
                Ok(self.done())
            }
        })*
    };
}

in_order! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}
by_name! {
    SerializeStruct,
    SerializeStructVariant,
}

impl ser::SerializeMap for Parts {
    type Ok = u64;
    type Error = Failed;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Failed> {
        self.key = key.serialize(self.trace)?;
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Failed> {
        self.add(self.key, value)
    }

    fn end(self) -> Result<u64, Failed> {
        Ok(self.done())
    }
}

/// An error of the value's own `Serialize`.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}
