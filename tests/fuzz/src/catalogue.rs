//! The catalogue's file.
//!
//! ```text
//! input   the text of a catalogue
//! ```
//!
//! - A refusal names the file, a line that is there, what is wrong and what to do.
//! - What is accepted gives rules that agents can work by, that fit a frame and survive it.
//! - What is accepted, written out again, reads as the same catalogue.

use tidemark_collector::catalog::Catalog;
use tidemark_common::id::RulesVersion;
use tidemark_common::wire::{decode_rules, encode_rules};

const FILE: &str = "catalog.toml";

pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Catalog::parse(text, FILE) {
        Ok(catalog) => {
            check_rules(&catalog);
            let again = catalog.to_toml();
            assert_eq!(Catalog::parse(&again, FILE), Ok(catalog), "{again}");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            let lines = text.split('\n').count();
            for problem in problems {
                let complete = problem.file == FILE
                    && !problem.message.is_empty()
                    && !problem.remedy.is_empty();
                assert!(complete && problem.line <= lines, "{problem}");
            }
        }
    }
}

fn check_rules(catalog: &Catalog) {
    let mut rules = catalog.rules_content();
    rules.version = RulesVersion(1);
    assert_eq!(rules.check(), Ok(()));
    let bytes = encode_rules(&rules).expect("a catalogue's rules fit a frame");
    assert_eq!(decode_rules(&bytes), Ok(rules));
    assert_eq!(catalog.check_follows(&catalog.aggregations()), Ok(()), "it may follow itself");
}
