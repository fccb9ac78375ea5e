//! Keys and signatures.
//!
//! ```text
//! signature   Ed25519 (RFC 8032) of a name of what is signed, and its bytes
//! a next key  is signed by the one before it, unless that was lost: "tidemark/key/1" + ledger [16] + key [32]
//! ```
//! **Owns** checking them. **Does not own** where a list of keys comes from, which is what trust in it rests on.

use ring::signature::{ED25519, UnparsedPublicKey};
use tidemark_common::hex;

use super::json::{self, Fields, Value};
use super::{Refusal, ensure};

/// A list of keys has at most this many.
const KEYS_MAX: usize = 10_000;

pub(super) type Key = [u8; 32];
pub(super) type Signature = [u8; 64];

/// Whether `key` signed `name` and `bytes`.
pub(super) fn check(
    key: &Key,
    (name, bytes): (&str, &[u8]),
    signature: &Signature,
    place: &str,
) -> Result<(), Refusal> {
    let message = [name.as_bytes(), bytes].concat();
    let checked = UnparsedPublicKey::new(&ED25519, key).verify(&message, signature);
    checked.map_err(|_| {
        let key = hex::encode(key);
        Refusal::new(place, format!("the signature is not that of the key {key} over these bytes"))
    })
}

/// The keys of a ledger, as it publishes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    ledger: [u8; 16],
    keys: Vec<Key>,
}

impl Keys {
    /// Reads what `GET /.well-known/tidemark-keys` answers.
    ///
    /// # Errors
    /// Another text, or a key that bears a signature which the one before it did not make.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let place = "the keys";
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(place, "is no UTF-8"))?;
        let value = json::parse(text.strip_suffix('\n').unwrap_or(text), place)?;
        let mut fields = Fields::of(&value, place)?;
        let ledger: [u8; 16] = fields.hex("ledger")?;
        let listed = fields.list("keys")?;
        fields.finish()?;
        ensure(!listed.is_empty() && listed.len() <= KEYS_MAX, place, || {
            format!("it lists {} keys; 1 to {KEYS_MAX} are read", listed.len())
        })?;
        let mut keys: Vec<Key> = Vec::new();
        for (number, value) in listed.iter().enumerate() {
            let place = format!("key {} of the keys", number.saturating_add(1));
            let key = next_key(value, &place, &ledger, keys.last())?;
            ensure(!keys.contains(&key), place, || "it stands twice".to_owned())?;
            keys.push(key);
        }
        Ok(Self { ledger, keys })
    }

    /// Whether the key is one of this ledger's.
    pub(super) fn hold(&self, ledger: &[u8; 16], key: &Key, place: &str) -> Result<(), Refusal> {
        ensure(self.ledger == *ledger, place, || {
            let (own, other) = (hex::encode(&self.ledger), hex::encode(ledger));
            format!("it is of the ledger {other}, and the keys are of {own}")
        })?;
        ensure(self.keys.contains(key), place, || {
            format!(
                "the key {} is none of the {} that were published",
                hex::encode(key),
                self.keys.len()
            )
        })
    }
}

fn next_key(
    value: &Value,
    place: &str,
    ledger: &[u8; 16],
    before: Option<&Key>,
) -> Result<Key, Refusal> {
    let mut fields = Fields::of(value, place)?;
    let key: Key = fields.hex("key")?;
    let _from: i64 = fields.number("from")?;
    let _until: Option<i64> = fields.nullable("until")?;
    let signature = fields.value("signature")?;
    fields.finish()?;
    match before {
        None => {
            ensure(signature.is_null(), place, || "the first key is signed by none".to_owned())?
        }
        // One that took the place of a lost one: trust in it is that in the list.
        Some(_) if signature.is_null() => {}
        Some(before) => {
            let message = [&ledger[..], &key].concat();
            check(before, ("tidemark/key/1", &message), &signature.hex(place)?, place)?;
        }
    }
    Ok(key)
}
