//! How a dead letter is taken once more.
//!
//! Invariants: a letter is taken whole or not at all; its number is handed over in the job that holds its
//! events, so that a crash leaves the letter or its events, never both and never neither. What is rejected again
//! changes nothing: it was counted when it came first, and stays. A known id makes a duplicate only of a letter that
//! is a whole line: the other values of a packed one share its id.

use tidemark_common::code::EvidenceCode;
use tidemark_common::time::Timestamp;

use super::{Answer, Content, Core, as_count};
use crate::event::RejectReason;
use crate::intake::replay::{Replay, Share};

impl Core {
    /// Takes a dead letter. An event keeps its own time or, without one, has that of the letter's first
    /// arrival; either is judged now, so that nothing gets into a month that may be closed. Numbered sources
    /// are left alone: the number is an old one.
    pub fn replay(&mut self, replay: &Replay, arrival: Timestamp) -> Answer {
        let Replay { number, at: _, share, message } = replay;
        let events = as_count(message.events.len());
        let counted = match share {
            Share::Whole => message.id.is_some_and(|id| self.ids.holds(id)),
            Share::OneValue => false,
        };
        if counted {
            self.count(EvidenceCode::Duplicates, events);
            self.replayed.push(*number);
            return Answer::Duplicate;
        }
        if let Err(reason) = self.take_whole(replay, arrival) {
            return Answer::Rejected(reason);
        }
        if let Some(id) = message.id {
            self.ids.insert(id);
        }
        self.count(EvidenceCode::Replayed, events);
        self.replayed.push(*number);
        self.hand_over_if_full(arrival);
        Answer::Accepted
    }

    fn take_whole(&mut self, replay: &Replay, arrival: Timestamp) -> Result<(), RejectReason> {
        let mut judged = Vec::new();
        for event in &replay.message.events {
            let event = event.as_ref().map_err(|reason| *reason)?;
            let (known, time) = self.judge(event, event.time.or(Some(replay.at)), arrival)?;
            judged.push((event, known, time));
        }
        // The id of a packed line says nothing of the one value that this was mended to.
        let id = replay.message.id.filter(|_| replay.share == Share::Whole);
        for (event, known, time) in judged {
            self.record(known, time, arrival, Content::of(event, id));
        }
        Ok(())
    }
}
