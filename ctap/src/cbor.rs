//! CTAP2's canonical CBOR (CTAP 2.2 §8): what is not in that form is refused before it is decoded.

use ciborium::Value;
use ciborium_ll::{Decoder, Encoder, Header};

use crate::Status;

/// §8: "the maximum nesting depth".
const MAX_DEPTH: usize = 4;

/// Bounds what a message can make us allocate. The longest list of credentials that fits a message has fewer.
const MAX_ITEMS: usize = 1024;

/// The longest header: a type and eight bytes.
const MAX_HEADER: usize = 9;

/// A map, or a part of one, from which a command takes its parameters.
#[derive(Debug)]
pub(crate) struct Map(Vec<(Value, Value)>);

/// What a parameter can be.
pub(crate) trait FromValue: Sized {
    /// `None` if it is of another type.
    fn from_value(value: Value) -> Option<Self>;
}

impl Map {
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Reads one map in canonical form. No bytes at all are an empty one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Status> {
        if bytes.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let mut items = 0;
        if !item(bytes, MAX_DEPTH, &mut items)?.is_empty() {
            return Err(Status::InvalidCbor);
        }
        let value = ciborium::from_reader(bytes).map_err(|_| Status::InvalidCbor)?;
        Self::from_value(value).ok_or(Status::CborUnexpectedType)
    }

    /// The map again, as it is encoded.
    #[expect(clippy::expect_used, reason = "encoding to memory")]
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::from(&mut bytes).push(Header::Map(Some(self.0.len()))).expect("a Vec takes all writes");
        for (key, value) in &self.0 {
            encode(key, &mut bytes);
            encode(value, &mut bytes);
        }
        bytes
    }

    pub(crate) fn has(&self, key: impl Into<Value>) -> bool {
        let key = key.into();
        self.0.iter().any(|(k, _)| *k == key)
    }

    /// A parameter that may be absent.
    pub(crate) fn optional<T: FromValue>(&mut self, key: impl Into<Value>) -> Result<Option<T>, Status> {
        let key = key.into();
        let Some(at) = self.0.iter().position(|(k, _)| *k == key) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        T::from_value(value).map(Some).ok_or(Status::CborUnexpectedType)
    }

    /// A parameter that may not.
    pub(crate) fn required<T: FromValue>(&mut self, key: impl Into<Value>) -> Result<T, Status> {
        self.optional(key)?.ok_or(Status::MissingParameter)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(map.0)
    }
}

/// Checks one item and returns what follows it.
fn item<'b>(bytes: &'b [u8], depth: usize, items: &mut usize) -> Result<&'b [u8], Status> {
    *items += 1;
    if *items > MAX_ITEMS {
        return Err(Status::LimitExceeded);
    }
    let (header, rest) = header(bytes)?;
    let deeper = || depth.checked_sub(1).ok_or(Status::InvalidCbor);
    match header {
        Header::Positive(_) | Header::Negative(_) | Header::Float(_) | Header::Simple(_) => Ok(rest),
        Header::Bytes(Some(len)) => Ok(rest.split_at_checked(len).ok_or(Status::InvalidCbor)?.1),
        Header::Text(Some(len)) => {
            let (text, rest) = rest.split_at_checked(len).ok_or(Status::InvalidCbor)?;
            std::str::from_utf8(text).map(|_| rest).map_err(|_| Status::InvalidCbor)
        }
        Header::Array(Some(len)) => {
            let depth = deeper()?;
            (0..len).try_fold(rest, |rest, _| item(rest, depth, items))
        }
        Header::Map(Some(len)) => {
            let depth = deeper()?;
            let mut last: &[u8] = &[];
            (0..len).try_fold(rest, |rest, _| {
                let after = item(rest, depth, items)?;
                let key = rest.get(..rest.len() - after.len()).unwrap_or_default();
                if order(last) >= order(key) {
                    return Err(Status::InvalidCbor);
                }
                last = key;
                item(after, depth, items)
            })
        }
        // Tags, and everything of indefinite length.
        _ => Err(Status::InvalidCbor),
    }
}

/// An item's header, if it is written the shortest way.
fn header(bytes: &[u8]) -> Result<(Header, &[u8]), Status> {
    let mut decoder = Decoder::from(bytes);
    let header = decoder.pull().map_err(|_| Status::InvalidCbor)?;
    let (read, rest) = bytes.split_at_checked(decoder.offset()).ok_or(Status::InvalidCbor)?;
    let mut shortest = Vec::with_capacity(MAX_HEADER);
    Encoder::from(&mut shortest).push(header).map_err(|_| Status::InvalidCbor)?;
    if shortest == read { Ok((header, rest)) } else { Err(Status::InvalidCbor) }
}

/// The order of a map's keys: by major type, then length, then bytes.
fn order(key: &[u8]) -> (u8, usize, &[u8]) {
    (key.first().map_or(0, |first| first >> 5), key.len(), key)
}

/// A reply's map, in canonical order if `members` is; absent ones are left out.
pub(crate) fn map<K: Into<Value>>(members: impl IntoIterator<Item = (K, Option<Value>)>) -> Value {
    Value::Map(members.into_iter().filter_map(|(key, value)| Some((key.into(), value?))).collect())
}

/// A byte string, as a member of [`map`].
#[expect(clippy::unnecessary_wraps, reason = "members are optional")]
pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Option<Value> {
    Some(Value::Bytes(bytes.into()))
}

/// A count, as a member of [`map`].
#[expect(clippy::unnecessary_wraps, reason = "members are optional")]
pub(crate) fn uint(count: usize) -> Option<Value> {
    Some(u64::try_from(count).unwrap_or(u64::MAX).into())
}

#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
pub(crate) fn encode(value: &Value, into: &mut Vec<u8>) {
    ciborium::into_writer(value, into).expect("a Vec takes all writes");
}

impl FromValue for Value {
    fn from_value(value: Value) -> Option<Self> {
        Some(value)
    }
}

impl FromValue for Map {
    fn from_value(value: Value) -> Option<Self> {
        value.into_map().ok().map(Self)
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Option<Self> {
        value.into_bytes().ok()
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Option<Self> {
        value.into_text().ok()
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Option<Self> {
        value.into_bool().ok()
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Option<Self> {
        value.into_integer().ok()?.try_into().ok()
    }
}

impl FromValue for u64 {
    fn from_value(value: Value) -> Option<Self> {
        value.into_integer().ok()?.try_into().ok()
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Option<Self> {
        value.into_array().ok()?.into_iter().map(T::from_value).collect()
    }
}
