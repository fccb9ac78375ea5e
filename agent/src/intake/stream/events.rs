//! One connection of `events.socket`: lines in, acknowledgements out.
//!
//! ```text
//! <- {"meter":"api.calls","customer":"acme","quantity":3}     line 1
//! <- oops                                                     line 2
//! <-                                                          line 3, blank: counts, says nothing
//! -> {"rejected":2,"reason":"malformed","remedy":"..."}
//! -> {"durable":3}
//! ```
//!
//! `durable` says that lines 1 to n of this connection are in the journal, known duplicates, not
//! metered, or answered as rejected. Answers come in the order of lines, after the fsync. A client may
//! send on without reading, up to [`OUTSTANDING_MAX`] submissions ahead; then it is read no further.
//!
//! An end of input is answered to the last line, even if that one has no end and so is `truncated`. A
//! client that is gone gets no answers, and still all that it sent is taken. A client that is there
//! and does not read for [`WRITE_WAIT_MAX`] is cut off: what was not acknowledged it sends again. One that
//! begins a line and does not end it is answered as at an end of input.
//! At shutdown, lines that were read are answered; what was not read, nor ended, is not.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};

use super::hearing::{Heard, Hearing};
use super::lines::{Line, Lines};
use super::places::Place;
use super::{ConnectionError, Gathered, OUTSTANDING_MAX};
use crate::event::{Door, Parsed, RejectReason};
use crate::intake::passage::{Passage, raw};
use crate::intake::{Answer, Answered, IntakeClosed, Item, Submission};
use crate::parse;

/// A client is given this long to read the answers to one submission.
pub(super) const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) async fn serve(
    stream: UnixStream,
    passage: Passage,
    place: &Place,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let (half, writer) = stream.into_split();
    let (pending, answers) = mpsc::channel(OUTSTANDING_MAX);
    let reader =
        Reader { passage, pending, gathered: Gathered::default(), numbers: Vec::new(), line: 0 };
    let hearing = Hearing::new(&half, place, shutdown);
    tokio::try_join!(reader.read(hearing), write(writer, answers))?;
    Ok(())
}

/// Lines that wait to be answered.
struct Pending {
    /// `None` if all of them are blank.
    answered: Option<oneshot::Receiver<Answered>>,
    /// The number of each line that is not blank.
    numbers: Vec<u64>,
    last: u64,
}

struct Reader {
    passage: Passage,
    pending: mpsc::Sender<Pending>,
    gathered: Gathered,
    numbers: Vec<u64>,
    /// The number of the last line that was taken.
    line: u64,
}

impl Reader {
    async fn read(mut self, mut hearing: Hearing<'_>) -> Result<(), ConnectionError> {
        let mut lines = Lines::default();
        loop {
            match hearing.next(lines.buffer()).await? {
                Heard::Bytes(read) => self.passage.counts(Door::Events).bytes.add_len(read),
                Heard::End => break,
                // As at an end: what came is answered.
                Heard::Unfinished | Heard::PlaceNeeded => {
                    self.passage.counts(Door::Events).connections_timed_out.add(1);
                    break;
                }
                Heard::Shutdown => return Ok(()),
            }
            let mut whole = 0_usize;
            while let Some(line) = lines.next() {
                whole = whole.saturating_add(1);
                self.take(&line);
                if self.gathered.is_full() {
                    self.submit().await?;
                }
            }
            self.submit().await?;
            hearing.took(whole, lines.is_unfinished());
        }
        if let Some(rest) = lines.end() {
            self.push(Parsed::Rejected(RejectReason::Truncated), rest);
        }
        self.submit().await
    }

    fn take(&mut self, line: &Line<'_>) {
        match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => {
                self.line = self.line.saturating_add(1)
            }
            Line::Whole(line) => self.push(parse::line(line, &self.passage.naming), line),
            Line::Oversize(line) => self.push(Parsed::Rejected(RejectReason::Oversize), line),
        }
    }

    fn push(&mut self, parsed: Parsed, line: &[u8]) {
        self.line = self.line.saturating_add(1);
        self.numbers.push(self.line);
        self.gathered.push(Item { parsed, raw: Bytes::copy_from_slice(raw(line)) }, line.len());
        self.passage.counts(Door::Events).messages.add(1);
    }

    /// Hands over what was gathered, once few enough submissions wait for their answers.
    async fn submit(&mut self) -> Result<(), ConnectionError> {
        let Gathered { items, bytes } = std::mem::take(&mut self.gathered);
        let numbers = std::mem::take(&mut self.numbers);
        // The writer ends first only with an error, which ends this as well.
        let place = self.pending.reserve().await.map_err(|_| IntakeClosed)?;
        let answered = if items.is_empty() {
            None
        } else {
            let reservation = self.passage.reserve(bytes).await;
            let submission = Submission { door: Door::Events, rules: None, items };
            Some(self.passage.submit(submission, reservation).await?)
        };
        place.send(Pending { answered, numbers, last: self.line });
        Ok(())
    }
}

/// Writes answers until the reader has ended and all are written.
async fn write(
    mut half: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Pending>,
) -> Result<(), ConnectionError> {
    let mut durable = 0;
    let mut gone = false;
    while let Some(pending) = answers.recv().await {
        let mut text = Vec::new();
        if let Some(answered) = pending.answered {
            rejections(answered.await.map_err(|_| IntakeClosed)?, &pending.numbers, &mut text)?;
        }
        if pending.last == durable || gone {
            continue;
        }
        durable = pending.last;
        push(&Durable { durable }, &mut text);
        match tokio::time::timeout(WRITE_WAIT_MAX, half.write_all(&text)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_gone(&error) => gone = true,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(ConnectionError::Unread(WRITE_WAIT_MAX)),
        }
    }
    Ok(())
}

fn rejections(answered: Answered, numbers: &[u64], text: &mut Vec<u8>) -> Result<(), IntakeClosed> {
    let answers = match answered {
        Answered::Durable(answers) => answers,
        // Not for lines: they are read under any rules. Without an answer the client sends them again.
        Answered::RulesChanged => return Err(IntakeClosed),
    };
    assert_eq!(answers.len(), numbers.len(), "intake answers every line");
    for (answer, &rejected) in answers.iter().zip(numbers) {
        match answer {
            Answer::Accepted | Answer::Duplicate | Answer::NotMetered => {}
            Answer::Rejected(reason) => {
                push(&Rejected { rejected, reason: reason.name(), remedy: reason.remedy() }, text);
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Durable {
    durable: u64,
}

#[derive(Serialize)]
struct Rejected {
    rejected: u64,
    reason: &'static str,
    remedy: &'static str,
}

fn push(answer: &impl Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(&mut *text, answer)
        .expect("an answer is plain JSON, and memory takes it");
    text.push(b'\n');
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
