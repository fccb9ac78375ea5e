//! Raw events: sent behind batches, within what is granted, and forgotten once they are archived.
//!
//! `raw:S/P` puts P pieces of batch S into the journal, `grant:A/B` says that those up to batch A are archived and grants B bytes
//! more: a piece has ten. `events:S.I+` is a piece, `events:ask` a frame without one; `+` and `ask` say that something waits.

use super::*;

/// The raw events in the journal: a batch, and how many pieces there are of it.
#[derive(Debug, Default)]
pub(super) struct Raw(Vec<(u64, u32)>);

const PIECE_BYTES: usize = 10;

impl Raw {
    pub(super) fn put(&mut self, step: &str) {
        let (sequence, pieces) = step.split_once('/').unwrap();
        self.0.push((sequence.parse().unwrap(), pieces.parse().unwrap()));
    }

    pub(super) fn archived(&mut self, sequence: u64) {
        self.0.retain(|(held, _)| *held > sequence);
    }

    pub(super) fn held(&self) -> RawEventsHeld {
        let pieces: u32 = self.0.iter().map(|(_, pieces)| pieces).sum();
        RawEventsHeld {
            batches: u64::try_from(self.0.len()).unwrap(),
            bytes: u64::from(pieces) * 10,
            first: self.0.first().map(|(first, _)| Sequence(*first)),
            last: self.0.last().map(|(last, _)| Sequence(*last)),
            given_up: 0,
        }
    }

    pub(super) fn first(
        &self,
        (from, index): (Sequence, u32),
        last: Sequence,
    ) -> Option<EventsPiece> {
        let within = |held: &&(u64, u32)| held.0 >= from.0 && held.0 <= last.0;
        let (sequence, of) = *self.0.iter().find(within)?;
        let index = if sequence == from.0 { index } else { 0 };
        let bytes = vec![1; PIECE_BYTES];
        (index < of).then_some(EventsPiece { sequence: Sequence(sequence), index, of, bytes })
    }
}

pub(super) fn welcome_events(posted: u64) -> Frame {
    Frame::Welcome(Welcome { extras: vec![Events::taken()], ..welcome(posted) })
}

pub(super) fn grant(step: &str, posted: u64) -> Frame {
    let (archived, grant) = step.split_once('/').unwrap();
    let archived = Sequence(archived.parse().unwrap());
    let extra = EventsAck { archived, grant: grant.parse().unwrap() }.to_extra();
    let Frame::Ack(ack) = ack(posted, 0, false) else { unreachable!() };
    Frame::Ack(Ack { extras: vec![extra], ..ack })
}

pub(super) fn told(events: &Events) -> String {
    match (&events.piece, events.rest) {
        (None, 0) => "events:none".to_owned(),
        (None, _) => "events:ask".to_owned(),
        (Some(piece), rest) => {
            let more = if rest > 0 { "+" } else { "" };
            format!("events:{}.{}{more}", piece.sequence, piece.index)
        }
    }
}

const JOINED: &str = "seal:2
     connect -> hello:0/2
     welcome-events:0 -> look:0 pin:0 batch:1 batch:2";

#[test]
fn nothing_is_said_of_raw_events_where_they_are_not_archived() {
    check(
        "seal:1
         raw:1/1
         connect -> hello:0/1
         welcome:0 -> look:0 pin:0 batch:1
         ack:1 -> posted:1",
    );
}

#[test]
fn raw_events_follow_their_batches_within_the_grant() {
    check(&format!(
        "raw:1/2
         raw:2/1
         {JOINED}
         ack:1 -> posted:1 events:ask
         grant:0/25 -> events:1.0+ events:1.1
         ack:2 -> posted:2 events:ask
         grant:1/9 -> archived:1 events:ask
         grant:1/1 -> events:2.0
         grant:2/0 -> archived:2"
    ));
}

#[test]
fn batches_go_first() {
    check(&format!(
        "raw:1/1
         raw:2/2
         {JOINED}
         ack:2 -> posted:2 events:ask
         seal:7 -> batch:3 batch:4 batch:5 batch:6
         grant:0/100
         ack:3 -> posted:3 batch:7 events:1.0+ events:2.0+ events:2.1
         raw:7/1 -> events:ask
         grant:2/50 -> archived:2 events:none
         ack:7 -> posted:7 events:ask"
    ));
}

#[test]
fn what_waits_no_more_gives_its_grant_back() {
    let mut world = check(&format!(
        "raw:1/1
         {JOINED}
         ack:2 -> posted:2 events:ask"
    ));
    // They had to leave the journal meanwhile.
    world.raw = Raw::default();
    assert_eq!(world.step("grant:0/100"), "events:none");
    world.raw.put("2/1");
    assert_eq!(world.step("start"), "events:ask", "what was granted is not counted on any more");
}

#[test]
fn a_new_session_begins_with_the_first_that_is_held() {
    check(&format!(
        "raw:1/1
         raw:2/1
         {JOINED}
         ack:2 -> posted:2 events:ask
         grant:0/100 -> events:1.0+ events:2.0
         lost:
         wait:600000 -> connect
         connect -> hello:2/2
         welcome-events:2 -> look:2 pin:2 events:ask
         grant:0/100 -> events:1.0+ events:2.0"
    ));
}

#[test]
fn what_was_not_sent_whole_cannot_be_archived() {
    let world = check(&format!(
        "raw:1/2
         {JOINED}
         ack:2 -> posted:2 events:ask
         grant:0/10 -> events:1.0+ events:ask
         grant:1/0 -> disconnect"
    ));
    assert!(
        world.last_error().contains("raw events of batch 1 are archived"),
        "{}",
        world.last_error()
    );
    assert_eq!(world.raw.held().batches, 1);
}

#[test]
fn a_stream_that_closes_waits_for_them_a_while() {
    check(&format!(
        "raw:1/1
         {JOINED}
         ack:2 -> posted:2 events:ask
         shutdown
         grant:0/10 -> events:1.0 write-closed close:2/1000 finished"
    ));
    check(&format!(
        "raw:1/1
         {JOINED}
         ack:2 -> posted:2 events:ask
         shutdown
         wait:4999
         wait:1 -> write-closed close:2/1000 finished"
    ));
}
