//! Edits of a journal's rows behind its back, in pages that stay sound.
//!
//! ```text
//! edit   table u8, row u8, act u8, then by act
//!          0  offset u8, removed u8, n u8, inserted [n]     3  the row under another key: number
//!          1  a varint of bincode: offset u8, number        4  the row is gone
//!          2  eight bytes, big-endian: offset u8, number    5  a new row: number, n u8, value [n]
//! number   u8: one of those that overflow or end something; from 16 on, u64 follows
//! ```
//!
//! A chunk's checksum is made to fit again, unless the act's high bit is set.

use redb::{Builder, Key, ReadableTable, ReadableTableMetadata, Table, TableDefinition, Value};

use super::ram::Ram;
use crate::choices::Choices;

/// As in the agent's `journal/tables.rs`, whose names and types are the format.
const META: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("meta");
const RULES: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("rules");
const CHUNKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("chunks");
const SEALED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sealed");
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
const POSTED: TableDefinition<'_, u64, i64> = TableDefinition::new("posted");
const IDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ids");
const DEAD_LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead_letters");
const SOURCES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sources");

/// A group u64 and an index u32: no other table has such keys.
const CHUNK_KEY_BYTES: usize = 12;
const SOUND: &str = "a template is a sound file, and memory does not fail";
/// An input makes at most this many edits.
const EDITS_MAX: usize = 16;
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    250,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];

/// The journal with its edits; as it is closed, or as a killed process leaves it.
#[must_use]
pub fn apply(journal: &[u8], killed: bool, mut choices: Choices<'_>) -> Vec<u8> {
    let disk = Ram::holding(journal.to_vec());
    let database = Builder::new().create_with_backend(disk.clone()).expect(SOUND);
    let write = database.begin_write().expect(SOUND);
    for _ in 0..EDITS_MAX {
        if choices.is_empty() {
            break;
        }
        match choices.byte() % 9 {
            0 => edit(&mut write.open_table(META).expect(SOUND), &mut choices),
            1 => edit(&mut write.open_table(RULES).expect(SOUND), &mut choices),
            2 => edit(&mut write.open_table(CHUNKS).expect(SOUND), &mut choices),
            3 => edit(&mut write.open_table(SEALED).expect(SOUND), &mut choices),
            4 => edit(&mut write.open_table(BATCHES).expect(SOUND), &mut choices),
            5 => edit(&mut write.open_table(POSTED).expect(SOUND), &mut choices),
            6 => edit(&mut write.open_table(IDS).expect(SOUND), &mut choices),
            7 => edit(&mut write.open_table(DEAD_LETTERS).expect(SOUND), &mut choices),
            _ => edit(&mut write.open_table(SOURCES).expect(SOUND), &mut choices),
        }
    }
    write.commit().expect(SOUND);
    let killed = killed.then(|| disk.bytes());
    drop(database);
    killed.unwrap_or_else(|| disk.bytes())
}

/// Makes one edit. Keys and values are edited as redb's bytes, and cut or filled to its widths.
fn edit<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    choices: &mut Choices<'_>,
) {
    let row = usize::from(choices.byte());
    let act = choices.byte();
    let (key, value) = match table.len().expect(SOUND) {
        0 => (vec![0; K::fixed_width().unwrap_or(4)], Vec::new()),
        rows => nth(table, row % usize::try_from(rows).expect("a few rows")),
    };
    let mut new_key = key.clone();
    let mut new = value.clone();
    match act % 6 {
        0 => {
            let start = usize::from(choices.byte()).min(new.len());
            let end = (start + usize::from(choices.byte())).min(new.len());
            let length = usize::from(choices.byte());
            drop(new.splice(start..end, choices.take(length).iter().copied()));
        }
        1 => {
            let start = usize::from(choices.byte()).min(new.len());
            let end = (start + varint_bytes(new.get(start).copied())).min(new.len());
            drop(new.splice(start..end, varint(number(choices))));
        }
        2 => {
            let start = usize::from(choices.byte()).min(new.len());
            let end = (start + 8).min(new.len());
            drop(new.splice(start..end, number(choices).to_be_bytes()));
        }
        3 => renumber(&mut new_key, number(choices)),
        4 => {
            remove(table, &key);
            return;
        }
        _ => {
            renumber(&mut new_key, number(choices));
            let length = usize::from(choices.byte());
            new = choices.take(length).to_vec();
        }
    }
    if let Some(width) = V::fixed_width() {
        new.resize(width, 0);
    }
    if K::fixed_width() == Some(CHUNK_KEY_BYTES) && act & 0x80 == 0 {
        let checksum = new.get(5..).map(crc32c::crc32c);
        if let (Some(checksum), Some(field)) = (checksum, new.get_mut(1..5)) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }
    if act % 6 == 3 {
        remove(table, &key);
    }
    drop(table.insert(K::from_bytes(&new_key), V::from_bytes(&new)).expect(SOUND));
}

fn nth<K: Key + 'static, V: Value + 'static>(
    table: &Table<'_, K, V>,
    row: usize,
) -> (Vec<u8>, Vec<u8>) {
    let entry = table.iter().expect(SOUND).nth(row).expect("there is such a row");
    let (key, value) = entry.expect(SOUND);
    let key = K::as_bytes(&key.value()).as_ref().to_vec();
    let value = V::as_bytes(&value.value()).as_ref().to_vec();
    (key, value)
}

fn remove<K: Key + 'static, V: Value + 'static>(table: &mut Table<'_, K, V>, key: &[u8]) {
    drop(table.remove(K::from_bytes(key)).expect(SOUND));
}

/// A key with another number in front: a chunk keeps its place in the group.
fn renumber(key: &mut [u8], number: u64) {
    for (byte, other) in key.iter_mut().zip(number.to_le_bytes()) {
        *byte = other;
    }
}

fn number(choices: &mut Choices<'_>) -> u64 {
    let which = usize::from(choices.byte());
    NUMBERS.get(which).copied().unwrap_or_else(|| choices.u64())
}

/// How long a varint of bincode is, by its first byte.
fn varint_bytes(first: Option<u8>) -> usize {
    match first {
        Some(251) => 3,
        Some(252) => 5,
        Some(253) => 9,
        Some(254) => 17,
        Some(_) | None => 1,
    }
}

fn varint(number: u64) -> Vec<u8> {
    match u8::try_from(number) {
        Ok(small) if small <= 250 => vec![small],
        Ok(_) | Err(_) => [&[253][..], &number.to_le_bytes()].concat(),
    }
}
