//! An intake for tests of doors: it judges nothing but ids, and is durable at once, or when told.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemark_common::id::RulesVersion;
use tidemark_common::wire::{Rules, UniqueKey};

use super::Passage;
use crate::event::{IdDigest, Parsed};
use crate::intake::figures::DoorFigures;
use crate::intake::{Answer, Answered, Control, Inbox, IntakeHandle, Submission, Submit};

/// What takes longer never comes. Nothing waits for it but a test that fails.
const GUARD: Duration = Duration::from_secs(10);

/// A passage into an inbox that the test empties.
pub(crate) fn passage(rules: Option<Rules>) -> (Passage, Inbox) {
    let (intake, inbox) =
        IntakeHandle::channel(Arc::default(), rules.map(Arc::new), Arc::new(|| {}));
    (Passage::new(intake, Arc::default(), Arc::new(DoorFigures::default())), inbox)
}

/// A passage into an intake that answers by itself.
pub(crate) fn answering_passage(rules: Option<Rules>) -> (Passage, FakeIntake) {
    let (passage, mut inbox) = passage(rules);
    let intake = FakeIntake::default();
    let (mut judge, rules) = (intake.clone(), passage.intake.clone());
    tokio::spawn(async move {
        while let Some(Submit { submission, reply }) = inbox.submissions.recv().await {
            let known = rules.rules().map_or(RulesVersion(0), |rules| rules.version);
            let answered = if submission.rules.is_some_and(|rules| rules != known) {
                Answered::RulesChanged
            } else {
                judge.judge(&submission)
            };
            // The door may be gone.
            drop(reply.send(answered));
        }
    });
    (passage, intake)
}

/// The next submission.
pub(crate) async fn next(inbox: &mut Inbox) -> Submit {
    let next = tokio::time::timeout(GUARD, inbox.submissions.recv()).await;
    next.expect("a submission comes").expect("the passage is open")
}

/// Rules of this version that say nothing.
pub(crate) fn rules(version: u64) -> Rules {
    Rules { version: RulesVersion(version), ..Rules::default() }
}

/// Gives rules of this version to the intake whose inbox this is.
pub(crate) async fn adopt(inbox: &mut Inbox, intake: &IntakeHandle, version: u64) {
    let key = UniqueKey { id: 1, key: [7; 32] };
    let given = intake.adopt(Some(Arc::new(rules(version))), key, 0);
    let taken_over = async {
        let control = tokio::time::timeout(GUARD, inbox.controls.recv()).await;
        if let Ok(Some(Control::Adopt { reply, .. })) = control {
            reply.send(()).unwrap();
        }
    };
    let (given, ()) = tokio::join!(given, taken_over);
    given.unwrap();
}

/// Remembers what it took.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeIntake {
    ids: HashSet<IdDigest>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl FakeIntake {
    /// `door answer text` of each item so far, the text cut after 20 bytes.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    pub(crate) fn judge(&mut self, submission: &Submission) -> Answered {
        let mut answers = Vec::new();
        for item in &submission.items {
            let answer = match &item.parsed {
                Parsed::NotMetered { .. } => Answer::NotMetered,
                Parsed::Rejected(reason) => Answer::Rejected(*reason),
                Parsed::Message(message) if message.id.is_some_and(|id| !self.ids.insert(id)) => {
                    Answer::Duplicate
                }
                Parsed::Message(message) => {
                    match message.events.iter().find_map(|event| event.as_ref().err()) {
                        Some(reason) => Answer::Rejected(*reason),
                        None => Answer::Accepted,
                    }
                }
            };
            let text = String::from_utf8_lossy(&item.raw[..item.raw.len().min(20)]).into_owned();
            let what = match answer {
                Answer::Accepted => "accepted",
                Answer::Duplicate => "duplicate",
                Answer::NotMetered => "not_metered",
                Answer::Rejected(reason) => reason.name(),
            };
            self.taken.lock().unwrap().push(format!("{} {what} {text}", submission.door.name()));
            answers.push(answer);
        }
        Answered::Durable(answers)
    }
}
