//! The frame decoder: bytes of a session's stream, cut anywhere.
//!
//! ```text
//! input   cuts u8, then a stream; or with cuts odd, records: type u8, length u16, payload
//! ```
//!
//! - In whatever pieces a stream arrives, it holds the same frames, and ends in the same error.
//! - A frame that was read can be written, and reads back as the same.
//! - What is awaited is never longer than the longest frame, and a length alone takes no memory.

use tidemark_common::wire::{BATCH_FRAME_BYTES_MAX, Frame, FrameBuffer, FrameError};

use crate::choices::Choices;
use crate::memory::bounded;

/// A decoded frame is larger than its bytes: an opening of three bytes becomes one of 32.
const MEMORY_PER_BYTE: usize = 64;
/// serde believes a list's claimed length up to 1 MiB of memory, once for each list within a list.
const MEMORY_FIXED_BYTES: usize = (4 << 20) + (64 << 10);
/// Length, type, payload.
const WIDEST: usize = 4 + 2 + BATCH_FRAME_BYTES_MAX;

/// What a stream comes to.
type Outcome = (Vec<Frame>, Option<FrameError>);

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let cuts = choices.byte();
    let enveloped;
    let stream = if cuts & 1 == 1 {
        enveloped = envelope(choices);
        &enveloped
    } else {
        choices.rest()
    };
    let memory = stream.len() * MEMORY_PER_BYTE + MEMORY_FIXED_BYTES;
    let whole = bounded(memory, || read(std::iter::once(stream)));
    for step in [1, usize::from(cuts).max(1), 4_096] {
        assert_eq!(read(stream.chunks(step)), whole, "in pieces of {step}");
    }
    for frame in &whole.0 {
        let bytes = frame.encode().expect("a frame that was read can be written");
        assert_eq!(read(std::iter::once(&bytes[..])), (vec![frame.clone()], None));
    }
}

/// Records as frames whose lengths are right, so that payloads are reached.
fn envelope(mut choices: Choices<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !choices.is_empty() {
        let number = u16::from(choices.byte());
        let length = choices.u16();
        let payload = choices.take(length.into());
        let length = u32::try_from(payload.len() + 2).expect("a u16 and 2");
        stream.extend_from_slice(&length.to_be_bytes());
        stream.extend_from_slice(&number.to_be_bytes());
        stream.extend_from_slice(payload);
    }
    stream
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut buffer = FrameBuffer::default();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        let awaited = buffer.unfinished().unwrap_or(0);
        assert!(awaited <= WIDEST, "a frame of {awaited} bytes is awaited");
    }
    (frames, None)
}
