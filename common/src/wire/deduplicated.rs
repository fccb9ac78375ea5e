//! What Welcome says in `extras` of the meters whose events are told apart by their ids in the whole ledger.
//!
//! ```text
//! tag 2   list of meter text, ascending      (bincode, as the frame itself)
//! ```
//! **Owns** where they stand: agents that do not know the tag meter these events as all others, and rules without
//! such meters have the bytes that they always had. An agent's cache holds the list behind the rules.

use super::codec::{FrameError, read, write};
use super::{Extra, Welcome};

/// Even: an agent that does not know it goes on without.
const TAG: u16 = 2;

/// Moves the list from the rules to the extras.
pub(super) fn to_extras(welcome: &Welcome) -> Result<Option<Welcome>, FrameError> {
    let Some(rules) = welcome.rules.as_ref().filter(|rules| !rules.deduplicated.is_empty()) else {
        return Ok(None);
    };
    let mut sent = welcome.clone();
    sent.extras.push(Extra { tag: TAG, bytes: write(&rules.deduplicated)? });
    Ok(Some(sent))
}

/// Moves it back. Without rules it says nothing.
pub(super) fn from_extras(welcome: &mut Welcome) -> Result<(), FrameError> {
    let Some(rules) = &mut welcome.rules else { return Ok(()) };
    for extra in welcome.extras.extract_if(.., |extra| extra.tag == TAG) {
        rules.deduplicated = read("Welcome", &extra.bytes)?;
    }
    Ok(())
}
