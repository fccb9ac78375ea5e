//! Dead letters taken once more, through the running agent.
//!
//! ```text
//! POST /dead-letters/replay   {"as_is": {"reason": R, "from": N, "to": N}}       those, as they were received
//!                             {"corrected": [{"number": N, "time": T, "text": S}]}   those, as mended
//!   200  {"replayed": [N], "duplicates": [N], "gone": [N], "kept": [{"number", "reason", "remedy"}], "next": N}
//! ```
//!
//! **Owns** which letters are taken, how they are read again, and what is said of each. **Does not own** how
//! they are judged (`intake/core/replay.rs`) or how they leave (`journal/apply/kept.rs`: in the transaction that
//! holds their events).
//!
//! Invariants: one replay at a time, from its reading of the letters until its events are durable, whether or
//! not the caller still listens; so no letter is read twice. What stays, stays unchanged and is not counted again.
//!
//! A letter is replayed as it is only where its bytes are exactly what was rejected: not of an input that was
//! cut, nor of a line of which other values were counted.
//!
//! A letter of a packed line whose values are taken one by one is one value ([`Share::OneValue`]), mended to one
//! event. The line's id may be known because of its other values, and says nothing of this one: it makes no
//! duplicate of it. That the letter leaves with its event keeps it to once. If no value of the line was counted and
//! its sender sent it once more, mended, the letter is that event again: it must be left where it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::id::RulesVersion;
use tidemark_common::wire::Rules;
use tokio::sync::Mutex;

use super::DeadLetterShown;
use crate::event::{Door, Message, Parsed, RejectReason};
use crate::intake::passage::RAW_BYTES_MAX;
use crate::intake::replay::{Replay, Share};
use crate::intake::stream::LINE_BYTES_MAX;
use crate::intake::{Answer, Answered, IntakeHandle};
use crate::journal::{JournalReader, StoredDeadLetter};
use crate::parse::cloudevents::{self, Shape};
use crate::parse::naming::Naming;
use crate::parse::{self, dogstatsd};

/// One request takes at most this many letters.
pub const REPLAYED_PER_REQUEST_MAX: usize = 500;
/// Letters are read under at most this many versions of the rules.
const READ_TRIES_MAX: usize = 4;

/// Which letters are to be taken, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayAsked {
    AsIs(Selection),
    Corrected(Vec<Corrected>),
}

/// Some of the letters, as they were received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Only those that were rejected for this.
    pub reason: Option<String>,
    /// Only numbers from here on, and up to there, both included.
    pub from: u64,
    pub to: Option<u64>,
}

/// One letter, mended. Number and time must be those of the letter that is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrected {
    pub number: u64,
    pub time: String,
    pub text: String,
}

/// What became of the letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayAnswer {
    /// Durable as events, and gone from the dead letters.
    pub replayed: Vec<u64>,
    /// Their id is known: gone without a further event.
    pub duplicates: Vec<u64>,
    /// There is no such letter: it was replayed before, or made room for newer ones.
    pub gone: Vec<u64>,
    /// Still there, with the reason.
    pub kept: Vec<Kept>,
    /// Ask from here for more; absent after the last.
    pub next: Option<u64>,
}

/// A letter that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub number: u64,
    pub reason: String,
    pub remedy: String,
}

/// Why nothing, or nothing more, was replayed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayError {
    #[error("there is no reason {0:?}; `dead-letters list` shows the reasons there are")]
    UnknownReason(String),
    #[error(
        "{asked} letters are too many for one request; send at most {REPLAYED_PER_REQUEST_MAX}"
    )]
    TooMany { asked: usize },
    #[error("the journal is full: replay once the collector has caught up")]
    Full,
    #[error("the agent is stopping: replay once it runs again")]
    Stopping,
    #[error("the collector's rules keep changing; try again")]
    RulesChanging,
    #[error("failed to read the dead letters: {0}")]
    Unreadable(String),
}

/// Replays the letters of one running agent.
#[derive(Clone)]
pub struct Replayer {
    reader: JournalReader,
    intake: IntakeHandle,
    naming: Arc<Naming>,
    one_at_a_time: Arc<Mutex<()>>,
}

impl fmt::Debug for Replayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayer").finish_non_exhaustive()
    }
}

impl Replayer {
    #[must_use]
    pub fn new(reader: JournalReader, intake: IntakeHandle, naming: Arc<Naming>) -> Self {
        Self { reader, intake, naming, one_at_a_time: Arc::default() }
    }

    /// Takes what is asked for. Goes on when the caller does not wait any more.
    ///
    /// # Errors
    /// See [`ReplayError`]: none of the letters was taken.
    pub async fn replay(&self, asked: ReplayAsked) -> Result<ReplayAnswer, ReplayError> {
        let this = self.clone();
        let replaying = tokio::spawn(async move { this.replay_alone(asked).await });
        replaying.await.unwrap_or(Err(ReplayError::Stopping))
    }

    async fn replay_alone(&self, asked: ReplayAsked) -> Result<ReplayAnswer, ReplayError> {
        let _alone = self.one_at_a_time.lock().await;
        let reader = self.reader.clone();
        let selected = tokio::task::spawn_blocking(move || select(&reader, asked)).await;
        let Selected { letters, mut answer } = selected.map_err(|_| ReplayError::Stopping)??;
        for _ in 0..READ_TRIES_MAX {
            if self.intake.is_full() {
                return Err(ReplayError::Full);
            }
            let rules = self.intake.rules();
            let (replays, kept) = read_again(&letters, rules.as_deref(), &self.naming);
            let numbers: Vec<u64> = replays.iter().map(|replay| replay.number).collect();
            let version = rules.map_or(RulesVersion(0), |rules| rules.version);
            let answered = self.intake.replay(Some(version), replays).await;
            let answered = answered.map_err(|_| ReplayError::Stopping)?;
            match answered.await.map_err(|_| ReplayError::Stopping)? {
                Answered::RulesChanged => {}
                Answered::Durable(answers) => {
                    answer.kept.extend(kept);
                    answer.take(&numbers, &answers);
                    answer.kept.sort_by_key(|kept| kept.number);
                    return Ok(answer);
                }
            }
        }
        Err(ReplayError::RulesChanging)
    }
}

impl ReplayAnswer {
    fn take(&mut self, numbers: &[u64], answers: &[Answer]) {
        assert_eq!(numbers.len(), answers.len(), "intake answers every letter");
        for (number, answer) in numbers.iter().zip(answers) {
            match answer {
                Answer::Accepted => self.replayed.push(*number),
                Answer::Duplicate => self.duplicates.push(*number),
                Answer::NotMetered => self.kept.push(NOT_METERED.of(*number)),
                Answer::Rejected(reason) => self.kept.push(again(*number, *reason)),
            }
        }
    }
}

/// A letter, and its mended text.
struct Letter {
    stored: StoredDeadLetter,
    corrected: Option<String>,
}

struct Selected {
    letters: Vec<Letter>,
    answer: ReplayAnswer,
}

fn select(reader: &JournalReader, asked: ReplayAsked) -> Result<Selected, ReplayError> {
    match asked {
        ReplayAsked::AsIs(selection) => select_as_is(reader, &selection),
        ReplayAsked::Corrected(corrected) => select_corrected(reader, corrected),
    }
}

fn select_as_is(reader: &JournalReader, selection: &Selection) -> Result<Selected, ReplayError> {
    if let Some(reason) = &selection.reason
        && !RejectReason::ALL.iter().any(|known| known.name() == reason)
    {
        return Err(ReplayError::UnknownReason(reason.clone()));
    }
    let mut letters = reader
        .dead_letters(selection.from, REPLAYED_PER_REQUEST_MAX)
        .map_err(|error| ReplayError::Unreadable(error.to_string()))?;
    let more = letters.len() >= REPLAYED_PER_REQUEST_MAX;
    let next = letters.last().filter(|_| more).map(|last| last.number.saturating_add(1));
    letters.retain(|letter| {
        let name = letter.reason.map(tidemark_common::code::EvidenceCode::name);
        selection.to.is_none_or(|to| letter.number <= to)
            && selection.reason.as_deref().is_none_or(|reason| name == Some(reason))
    });
    let answer = ReplayAnswer {
        next: next.filter(|next| selection.to.is_none_or(|to| *next <= to)),
        ..ReplayAnswer::default()
    };
    let letters = letters.into_iter().map(|stored| Letter { stored, corrected: None }).collect();
    Ok(Selected { letters, answer })
}

fn select_corrected(
    reader: &JournalReader,
    corrected: Vec<Corrected>,
) -> Result<Selected, ReplayError> {
    if corrected.len() > REPLAYED_PER_REQUEST_MAX {
        return Err(ReplayError::TooMany { asked: corrected.len() });
    }
    let mut letters: Vec<Letter> = Vec::new();
    let mut answer = ReplayAnswer::default();
    for Corrected { number, time, text } in corrected {
        let found = reader
            .dead_letters(number, 1)
            .map_err(|error| ReplayError::Unreadable(error.to_string()))?;
        let twice = letters.iter().any(|letter| letter.stored.number == number);
        match found.into_iter().find(|letter| letter.number == number) {
            None => answer.gone.push(number),
            Some(_) if twice => answer.kept.push(TWICE.of(number)),
            Some(stored) if DeadLetterShown::from(stored.clone()).time != time => {
                answer.kept.push(CHANGED.of(number));
            }
            Some(stored) => {
                let unchanged = stored.bytes == text.as_bytes();
                letters.push(Letter { stored, corrected: (!unchanged).then_some(text) });
            }
        }
    }
    Ok(Selected { letters, answer })
}

/// What can be handed to intake, and what stays for its bytes alone.
fn read_again(
    letters: &[Letter],
    rules: Option<&Rules>,
    naming: &Naming,
) -> (Vec<Replay>, Vec<Kept>) {
    let mut replays = Vec::new();
    let mut kept = Vec::new();
    for letter in letters {
        let StoredDeadLetter { number, at, .. } = letter.stored;
        match message(letter, rules, naming) {
            Ok((message, share)) => replays.push(Replay { number, at, share, message }),
            Err(stays) => kept.push(stays),
        }
    }
    (replays, kept)
}

fn message(
    letter: &Letter,
    rules: Option<&Rules>,
    naming: &Naming,
) -> Result<(Message, Share), Kept> {
    let StoredDeadLetter { number, door, reason, bytes, .. } = &letter.stored;
    let (Some(door), Some(reason)) = (*door, reason.and_then(RejectReason::from_code)) else {
        return Err(NEWER.of(*number));
    };
    let text = letter.corrected.as_deref().map_or(bytes.as_slice(), str::as_bytes);
    if text.len() > LINE_BYTES_MAX {
        return Err(again(*number, RejectReason::Oversize));
    }
    let as_is = letter.corrected.is_none();
    let share = share(door, reason, bytes);
    let cut = matches!(reason, RejectReason::Truncated | RejectReason::Oversize);
    if as_is && (cut || bytes.len() >= RAW_BYTES_MAX) {
        return Err(match share {
            Share::Whole => CUT.of(*number),
            Share::OneValue => PACKED.of(*number),
        });
    }
    let message = match read(door, text, rules, naming).ok_or_else(|| NO_RULES.of(*number))? {
        Parsed::Message(message) => message,
        Parsed::NotMetered { .. } => return Err(NOT_METERED.of(*number)),
        Parsed::Rejected(reason) => return Err(again(*number, reason)),
    };
    match share {
        Share::OneValue if as_is || message.events.len() > 1 => Err(PACKED.of(*number)),
        Share::OneValue | Share::Whole => Ok((message, share)),
    }
}

/// Reads a letter as its door did; `None` if the rules that it needs are not known.
fn read(door: Door, text: &[u8], rules: Option<&Rules>, naming: &Naming) -> Option<Parsed> {
    match door {
        // A mended line may be JSON, whatever it was.
        Door::Udp | Door::UnixDatagram | Door::DsdStream if !text.starts_with(b"{") => {
            Some(dogstatsd::message(text, naming))
        }
        Door::Udp | Door::UnixDatagram | Door::DsdStream | Door::Events => {
            Some(parse::line(text, naming))
        }
        Door::Http => {
            let read = cloudevents::messages(text, Shape::One, rules?, naming);
            let one = read.ok().and_then(|read| read.into_iter().next());
            Some(one.map_or(Parsed::Rejected(RejectReason::BadCloudEvent), |(_, parsed)| parsed))
        }
    }
}

/// What a letter is of its line. Of one that was cut when it was kept, the values tell, or what is there of them.
fn share(door: Door, reason: RejectReason, bytes: &[u8]) -> Share {
    let is_json = door == Door::Http || bytes.trim_ascii_start().starts_with(b"{");
    let is_cut = bytes.len() >= RAW_BYTES_MAX;
    if is_json || rejects_whole_lines(reason) {
        return Share::Whole;
    }
    match dogstatsd::split(bytes) {
        Ok(raw) if dogstatsd::values(&raw).nth(1).is_some() => Share::OneValue,
        // What is no time at all rejects its whole line.
        Err(_) if is_cut && reason != RejectReason::BadTime && dogstatsd::begins_packed(bytes) => {
            Share::OneValue
        }
        Ok(_) | Err(_) => Share::Whole,
    }
}

/// Whether a DogStatsD line that is rejected for this has none of its values counted, and is one letter. Of those
/// that are not, each value is a letter of its own.
fn rejects_whole_lines(reason: RejectReason) -> bool {
    match reason {
        RejectReason::Malformed
        | RejectReason::Truncated
        | RejectReason::Oversize
        | RejectReason::NotUtf8
        | RejectReason::BadMeter
        | RejectReason::NoCustomer
        | RejectReason::BadCustomer
        | RejectReason::BadId
        | RejectReason::BadDimension
        | RejectReason::TooManyDimensions
        | RejectReason::Sampled
        | RejectReason::ServiceCheck
        | RejectReason::DogstatsdEvent
        | RejectReason::UnsupportedType
        | RejectReason::BadUnique
        | RejectReason::BadSource
        | RejectReason::BadCloudEvent
        | RejectReason::JournalFull => true,
        RejectReason::BadTime
        | RejectReason::TooOld
        | RejectReason::InFuture
        | RejectReason::BadQuantity
        | RejectReason::NotFinite
        | RejectReason::TooPrecise
        | RejectReason::TooLarge
        | RejectReason::Negative
        | RejectReason::TooManyValues => false,
    }
}

/// Why a letter stays, besides being rejected again.
struct Stays(&'static str, &'static str);

const CUT: Stays = Stays(
    "cut",
    "Its end was not received or not kept: write the whole line into an exported file and replay that.",
);
const PACKED: Stays = Stays(
    "packed",
    "Its line packs several values, and others may be counted: leave only its own in an exported file, and replay that.",
);
const CHANGED: Stays =
    Stays("changed", "Another dead letter has this number now: export again, mend that file.");
const TWICE: Stays =
    Stays("twice", "The request names it twice: keep one of its lines in the file.");
const NO_RULES: Stays = Stays(
    "no_rules",
    "The agent does not know the collector's rules yet: replay once it is connected.",
);
const NOT_METERED: Stays = Stays(
    "not_metered",
    "naming.metered leaves its name out: it is no usage any more, and may stay.",
);
const NEWER: Stays = Stays("newer", "A newer agent wrote it: replay it with that one.");

impl Stays {
    fn of(&self, number: u64) -> Kept {
        Kept { number, reason: self.0.to_owned(), remedy: self.1.to_owned() }
    }
}

fn again(number: u64, reason: RejectReason) -> Kept {
    Kept { number, reason: reason.name().to_owned(), remedy: reason.remedy().to_owned() }
}

#[cfg(test)]
mod tests;
