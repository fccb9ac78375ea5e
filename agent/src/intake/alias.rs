//! From (name, tags) as received to the series of the open batch, without parsing them again.
//!
//! **Owns** the table of bytes seen in this batch. **Does not own** what they mean: only what the
//! parser has accepted once is remembered, and nothing that names one event (an id, a source's
//! count). Two spellings of one series are two aliases of one slot.
//!
//! The name's length is part of the key: `a` + `b,c` and `ab` + `,c` differ.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use tidemark_common::chunk::SeriesSlot;

/// The table remembers at most this many (name, tags), as many as fit without its last doubling, and this many bytes of
/// them; beyond it, lines are parsed.
pub(crate) const ALIASES_MAX: usize = (1 << 17) / 8 * 7;
pub(crate) const ALIAS_BYTES_MAX: usize = 4 << 20;

/// What a known (name, tags) stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alias {
    Series(Known),
    NotMetered { excluded: bool },
}

/// A known series and what its events must be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) slot: SeriesSlot,
    pub(crate) negative: bool,
    /// Whether the rules have its events told apart by their ids in the whole ledger.
    pub(crate) deduplicated: bool,
    /// Dimensions that the rules drop from each event.
    pub(crate) dropped: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Aliases {
    table: HashTable<Entry>,
    bytes: Vec<u8>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry {
    start: u32,
    name: u16,
    tags: u16,
    alias: Alias,
}

impl Aliases {
    pub(crate) fn find(&self, name: &[u8], tags: &[u8]) -> Option<Alias> {
        let hash = hash_of(&self.hasher, name, tags);
        self.table
            .find(hash, |entry| entry.key(&self.bytes) == (name, tags))
            .map(|entry| entry.alias)
    }

    /// Remembers `alias` for (name, tags), which are not known yet, while there is room.
    pub(crate) fn remember(&mut self, name: &[u8], tags: &[u8], alias: Alias) {
        let room = ALIAS_BYTES_MAX.saturating_sub(self.bytes.len());
        let (Ok(name_bytes), Ok(tag_bytes), Ok(start)) =
            (u16::try_from(name.len()), u16::try_from(tags.len()), u32::try_from(self.bytes.len()))
        else {
            return;
        };
        if name.len().saturating_add(tags.len()) > room || self.table.len() >= ALIASES_MAX {
            return;
        }
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(tags);
        let entry = Entry { start, name: name_bytes, tags: tag_bytes, alias };
        let (bytes, hasher) = (&self.bytes, &self.hasher);
        self.table.insert_unique(hash_of(hasher, name, tags), entry, |entry| {
            let (name, tags) = entry.key(bytes);
            hash_of(hasher, name, tags)
        });
    }

    /// Forgets all: the slots belong to a batch that is closed.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.bytes.clear();
    }
}

impl Entry {
    fn key<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let start = usize::try_from(self.start).expect("a u32 fits the address space");
        let middle = start.saturating_add(usize::from(self.name));
        (&bytes[start..middle], &bytes[middle..middle.saturating_add(usize::from(self.tags))])
    }
}

fn hash_of(hasher: &DefaultHashBuilder, name: &[u8], tags: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(name);
    state.write_usize(name.len());
    state.write(tags);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(slot: u32) -> Alias {
        let slot = SeriesSlot(slot);
        Alias::Series(Known { slot, negative: false, deduplicated: false, dropped: 0 })
    }

    #[test]
    fn the_boundary_between_name_and_tags_is_part_of_the_key() {
        let mut aliases = Aliases::default();
        aliases.remember(b"ab", b"c", known(1));
        aliases.remember(b"a", b"bc", known(2));
        assert_eq!(aliases.find(b"ab", b"c"), Some(known(1)));
        assert_eq!(aliases.find(b"a", b"bc"), Some(known(2)));
        assert_eq!(aliases.find(b"abc", b""), None);
    }

    #[test]
    fn many_aliases_are_found_until_cleared() {
        let mut aliases = Aliases::default();
        for number in 0..5_000_u32 {
            aliases.remember(b"name", number.to_string().as_bytes(), known(number));
        }
        for number in 0..5_000_u32 {
            assert_eq!(aliases.find(b"name", number.to_string().as_bytes()), Some(known(number)));
        }
        aliases.clear();
        assert_eq!(aliases.find(b"name", b"0"), None);
    }

    #[test]
    fn a_full_table_forgets_nothing_and_remembers_no_more() {
        let mut aliases = Aliases::default();
        let long = vec![b'x'; 60_000];
        for number in 0..1_000_u32 {
            aliases.remember(number.to_string().as_bytes(), &long, known(number));
        }
        assert_eq!(aliases.find(b"0", &long), Some(known(0)));
        assert_eq!(aliases.find(b"999", &long), None);
        assert!(aliases.bytes.len() <= ALIAS_BYTES_MAX);
    }
}
