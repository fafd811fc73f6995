//! Canonical JSON: I-JSON (RFC 7493) in the form of RFC 8785, narrowed so that every value has exactly one spelling.
//!
//! Integers lie strictly between -2^53 and 2^53, larger ones and every amount are decimal strings; there are no floats;
//! object keys are ASCII; depth and size are bounded; duplicate keys are refused; received bytes must equal their
//! canonical form.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How deeply arrays and objects may nest. Nothing of ours needs more than ten.
pub const MAX_DEPTH: usize = 32;
/// The largest magnitude of an integer, 2^53 - 1: what every JSON implementation keeps exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why bytes or a value are not canonical JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// More bytes than this place allows.
    #[error("{got} bytes of JSON, at most {max} are allowed here")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// The bound of this place.
        max: usize,
    },
    /// Arrays and objects nest too deeply.
    #[error("JSON nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A number that is no integer below 2^53.
    #[error("the number {0} is not an integer below 2^53; write larger values as strings")]
    Number(String),
    /// An object key with characters outside printable ASCII.
    #[error("the object key {0:?} is not printable ASCII")]
    Key(String),
    /// The bytes are JSON, but not in canonical form (order, spacing, escapes, or a key given twice).
    #[error("the bytes are not in canonical form (RFC 8785), first difference at byte {at}")]
    NotCanonical {
        /// Offset of the first byte that differs.
        at: usize,
    },
    /// Not JSON, or not of the shape that is expected here.
    #[error("not the expected JSON: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// The canonical bytes of a value.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JsonError> {
    let value = serde_json::to_value(value)?;
    let mut out = Vec::new();
    write(&value, 0, &mut out)?;
    Ok(out)
}

/// As [`to_vec`], as text.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    to_vec(value).map(|v| String::from_utf8(v).expect("canonical JSON is UTF-8 by construction"))
}

/// Reads canonical bytes, refusing everything that is not exactly canonical or larger than `max_bytes`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, JsonError> {
    if bytes.len() > max_bytes {
        return Err(JsonError::TooLarge {
            got: bytes.len(),
            max: max_bytes,
        });
    }
    // serde_json bounds recursion at 128, so a bomb fails before our own depth is looked at. A duplicate key vanishes
    // in the tree and so shows as a difference below.
    let value: Value = serde_json::from_slice(bytes)?;
    let mut again = Vec::with_capacity(bytes.len());
    write(&value, 0, &mut again)?;
    if again != bytes {
        let at = again
            .iter()
            .zip(bytes)
            .position(|(a, b)| a != b)
            .unwrap_or(again.len().min(bytes.len()));
        return Err(JsonError::NotCanonical { at });
    }
    Ok(serde_json::from_value(value)?)
}

/// Reads JSON that others wrote, in any spelling: bounded, and refused where a key stands twice in an object. Two readers
/// of such a document can see two different things.
pub fn from_slice_of_others<T: DeserializeOwned>(
    bytes: &[u8],
    max_bytes: usize,
) -> Result<T, JsonError> {
    if bytes.len() > max_bytes {
        return Err(JsonError::TooLarge {
            got: bytes.len(),
            max: max_bytes,
        });
    }
    let Unique(value) = serde_json::from_slice(bytes)?;
    Ok(serde_json::from_value(value)?)
}

/// A JSON value none of whose objects has a key twice. `serde_json` bounds the depth.
struct Unique(Value);

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> serde::de::Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(serde::de::Error::custom(format!(
                    "the key {shown:?} stands there twice"
                )));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(n) => {
            let fits = n.as_i64().is_some_and(|i| i.unsigned_abs() <= MAX_INTEGER);
            if !fits {
                return Err(JsonError::Number(n.to_string()));
            }
            out.extend(n.to_string().bytes());
        }
        // serde_json escapes as RFC 8785 asks: the two-letter forms, \u00xx in lower case for the rest, nothing else.
        Value::String(s) => serde_json::to_writer(out, s)?,
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // ASCII keys sort alike by bytes and by UTF-16 units. Sorted here, because a dependency's feature can
            // make serde_json's map keep insertion order.
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for (i, key) in keys.into_iter().enumerate() {
                if !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                    return Err(JsonError::Key(key.chars().take(80).collect()));
                }
                if i > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                write(&map[key], depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MAX: usize = 1 << 20;

    #[test]
    fn keys_are_sorted_and_spaces_gone() {
        assert_eq!(
            to_string(&json!({"b": 1, "a": [true, null, "é\n\u{1}"]})).unwrap(),
            "{\"a\":[true,null,\"é\\n\\u0001\"],\"b\":1}"
        );
    }

    #[test]
    fn refusals_by_name() {
        let cases: [(&[u8], &str); 7] = [
            (b"{\"a\":1,\"a\":1}", "canonical"),
            (b"{\"b\":1,\"a\":1}", "canonical"),
            (b"{ }", "canonical"),
            (b"1.0", "2^53"),
            (b"9007199254740992", "2^53"),
            (b"{\"\xc3\xa9\":1}", "ASCII"),
            (b"\"\\u0041\"", "canonical"),
        ];
        for (bytes, word) in cases {
            let error = from_slice::<Value>(bytes, MAX).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let deep = [vec![b'['; 40], vec![b']'; 40]].concat();
        assert!(matches!(
            from_slice::<Value>(&deep, MAX),
            Err(JsonError::TooDeep)
        ));
        assert!(matches!(
            from_slice::<Value>(b"[1]", 2),
            Err(JsonError::TooLarge { .. })
        ));
        assert!(from_slice::<Value>(b"-0", MAX).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(s in ".*", n in -9_007_199_254_740_991_i64..=9_007_199_254_740_991, k in "[ -~]{0,8}") {
            let value = json!({k: [s, n]});
            let bytes = to_vec(&value).unwrap();
            proptest::prop_assert_eq!(from_slice::<Value>(&bytes, MAX).unwrap(), value);
        }
    }
}
