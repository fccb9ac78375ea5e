//! A small writer of proofs, from the page alone: what an operator has who follows it, honest or not.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use tidemark_common::hex;

use super::super::json::Value;

/// The same numbers from the same seed.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(super) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// All that a proof holds, before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) document: Value,
    pub(super) as_of: i64,
    pub(super) complete_through: i64,
    pub(super) from_day: u32,
    pub(super) customer: String,
    pub(super) siblings: Vec<[u8; 32]>,
    /// Whether a day is given by its texts.
    pub(super) days: Vec<(u32, Vec<String>, bool)>,
    pub(super) plans: Vec<String>,
    pub(super) subscriptions: Vec<String>,
    pub(super) parts: Value,
    pub(super) tax_rounding: Value,
}

pub(super) const LEDGER: [u8; 16] = [0xa5; 16];
const POSITION: [u8; 6] = [0xde, 0xad, 0, 0xff, 0x10, 0x01];

pub(super) fn key_pair(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap()
}

pub(super) fn public(key: &Ed25519KeyPair) -> String {
    hex::encode(key.public_key().as_ref())
}

pub(super) fn sign(key: &Ed25519KeyPair, name: &str, bytes: &[u8]) -> String {
    hex::encode(key.sign(&[name.as_bytes(), bytes].concat()).as_ref())
}

pub(super) fn sha(pieces: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(pieces.concat()).into()
}

fn be(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_be_bytes()
}

pub(super) fn day_digest(day: u32, texts: &[String]) -> [u8; 32] {
    let mut bytes = [&b"tidemark/day/1"[..], &day.to_be_bytes(), &be(texts.len())].concat();
    for text in texts {
        bytes.extend([&be(text.len()), text.as_bytes()].concat());
    }
    sha(&[&bytes])
}

pub(super) fn customer_digest(customer: &str, days: &[(u32, Vec<String>)]) -> [u8; 32] {
    let length = u16::try_from(customer.len()).unwrap().to_be_bytes();
    let head = [b"tidemark/customer/1", &length[..], customer.as_bytes(), &be(days.len())].concat();
    let days = days
        .iter()
        .flat_map(|(day, texts)| [&day.to_be_bytes()[..], &day_digest(*day, texts)].concat());
    sha(&[&head, &days.collect::<Vec<_>>()])
}

/// JSON as the page has it.
pub(super) fn written(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => quoted(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(","))
        }
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(key, value)| format!("{}:{}", quoted(key), written(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter if u32::from(letter) < 0x20 => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

pub(super) fn number<N: TryInto<i128>>(number: N) -> Value
where
    N::Error: std::fmt::Debug,
{
    Value::Integer(number.try_into().unwrap())
}

/// A field, for changing it.
pub(super) fn field<'v>(value: &'v mut Value, key: &str) -> &'v mut Value {
    let Value::Object(fields) = value else { panic!("{value:?} is no object") };
    &mut fields.iter_mut().find(|(name, _)| name == key).unwrap_or_else(|| panic!("no {key}")).1
}

impl Proof {
    fn root(&self) -> [u8; 32] {
        let days: Vec<_> = self.days.iter().map(|(day, texts, _)| (*day, texts.clone())).collect();
        if days.is_empty() {
            return [9; 32];
        }
        let leaf = sha(&[&[0], &POSITION, &customer_digest(&self.customer, &days)]);
        let bits: Vec<u8> = POSITION
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| (byte >> bit) & 1))
            .collect();
        let mut node = leaf;
        for (sibling, bit) in self.siblings.iter().zip(bits.iter().rev()) {
            node =
                if *bit == 0 { sha(&[&[1], &node, sibling]) } else { sha(&[&[1], sibling, &node]) };
        }
        node
    }

    pub(super) fn head(&self, key: &Ed25519KeyPair) -> Value {
        object([
            ("format", text("tidemark certificate 1")),
            ("ledger", text(&hex::encode(&LEDGER))),
            ("number", number(3)),
            ("previous", text(&"1a".repeat(32))),
            ("at", number(self.as_of)),
            ("as_of", number(self.as_of)),
            ("complete_through", number(self.complete_through)),
            ("from_day", number(self.from_day)),
            ("batches", number(17)),
            ("entries", number(5)),
            ("entries_digest", text(&"2b".repeat(32))),
            ("usage_root", text(&hex::encode(&self.root()))),
            ("streams_root", text(&"3c".repeat(32))),
            ("statement_sha256", text(&"4d".repeat(32))),
            ("key", text(&public(key))),
        ])
    }

    /// All but the signature, with a certificate of its own and the document that names it.
    pub(super) fn unsigned(&self, key: &Ed25519KeyPair) -> Value {
        let head = written(&self.head(key));
        let mut document = self.document.clone();
        *field(field(field(&mut document, "cut"), "certificate"), "sha256") =
            text(&hex::encode(&sha(&[head.as_bytes()])));
        let path = object([
            ("position", text(&hex::encode(&POSITION))),
            (
                "siblings",
                Value::List(self.siblings.iter().map(|one| text(&hex::encode(one))).collect()),
            ),
        ]);
        let days = self.days.iter().map(|(day, texts, is_given)| {
            let content = match is_given {
                true => Value::List(texts.iter().map(|one| text(one)).collect()),
                false => text(&hex::encode(&day_digest(*day, texts))),
            };
            Value::List(vec![number(*day), content])
        });
        let all = |texts: &[String]| Value::List(texts.iter().map(|one| text(one)).collect());
        object([
            ("format", text("tidemark invoice 1")),
            ("document", text(&written(&document))),
            (
                "certificate",
                object([
                    ("head", text(&head)),
                    ("signature", text(&sign(key, "tidemark/certificate/1", head.as_bytes()))),
                ]),
            ),
            ("customer", text(&self.customer)),
            ("path", if self.days.is_empty() { Value::Null } else { path }),
            ("days", Value::List(days.collect())),
            ("plans", all(&self.plans)),
            ("subscriptions", all(&self.subscriptions)),
            ("parts", self.parts.clone()),
            ("tax_rounding", self.tax_rounding.clone()),
            ("key", text(&public(key))),
        ])
    }

    pub(super) fn file(&self, key: &Ed25519KeyPair) -> Vec<u8> {
        signed(&self.unsigned(key), key)
    }
}

/// A file of what was not signed yet.
pub(super) fn signed(unsigned: &Value, key: &Ed25519KeyPair) -> Vec<u8> {
    let text = written(unsigned);
    let text = text.strip_suffix('}').unwrap();
    let signature = sign(key, "tidemark/invoice/1", text.as_bytes());
    format!("{text},\"signature\":\"{signature}\"}}\n").into_bytes()
}
