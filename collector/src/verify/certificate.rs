//! A certificate's head: what a ledger signed of itself as of one instant.
//!
//! **Owns** reading and checking it. **Does not own** the statement, which a customer does not get, or what the roots
//! are of.

use super::json::{self, Fields, Value};
use super::keys::{self, Key};
use super::tree::{Digest, hash};
use super::{Refusal, ensure};

const NOTHING: Digest = [0; 32];
const PLACE: &str = "the certificate's head";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) ledger: [u8; 16],
    pub(super) number: u64,
    /// Unix milliseconds.
    pub(super) as_of: i64,
    pub(super) complete_through: Option<i64>,
    pub(super) from_day: u32,
    pub(super) batches: u64,
    pub(super) entries: u64,
    pub(super) usage_root: Digest,
    pub(super) streams_root: Digest,
    pub(super) statement: Digest,
    pub(super) key: Key,
    /// Of the certificate.
    pub(super) digest: Digest,
}

impl Head {
    /// Reads a head's text, and checks who signed it.
    pub(super) fn read(text: &str, signature: &[u8; 64]) -> Result<Self, Refusal> {
        let value = json::parse(text, PLACE)?;
        let mut fields = Fields::of(&value, PLACE)?;
        fields.format("tidemark certificate 1")?;
        let ledger = fields.hex("ledger")?;
        let number = fields.number("number")?;
        let previous: Digest = fields.hex("previous")?;
        let _at: i64 = fields.number("at")?;
        let head = Self {
            ledger,
            number,
            as_of: fields.number("as_of")?,
            complete_through: fields.nullable("complete_through")?,
            from_day: fields.number("from_day")?,
            batches: fields.number("batches")?,
            entries: fields.number("entries")?,
            digest: hash(&[text.as_bytes()]),
            usage_root: NOTHING,
            streams_root: NOTHING,
            statement: NOTHING,
            key: [0; 32],
        };
        let entries_digest: Digest = fields.hex("entries_digest")?;
        let head = Self {
            usage_root: fields.hex("usage_root")?,
            streams_root: fields.hex("streams_root")?,
            statement: fields.hex("statement_sha256")?,
            key: fields.hex("key")?,
            ..head
        };
        fields.finish()?;
        ensure(number > 0, PLACE, || "certificates are numbered from 1".to_owned())?;
        ensure((number == 1) == (previous == NOTHING), PLACE, || {
            "the first certificate names none before it, and each other one does".to_owned()
        })?;
        ensure((head.entries == 0) == (entries_digest == NOTHING), PLACE, || {
            "it has entries without a digest, or a digest without entries".to_owned()
        })?;
        keys::check(&head.key, ("tidemark/certificate/1", text.as_bytes()), signature, PLACE)?;
        Ok(head)
    }

    /// `{"head":TEXT,"signature":HEX}` within a proof.
    pub(super) fn of_proof(value: &Value) -> Result<Self, Refusal> {
        let mut fields = Fields::of(value, "certificate")?;
        let (text, signature) = (fields.text("head")?, fields.hex("signature")?);
        fields.finish()?;
        Self::read(text, &signature)
    }
}
