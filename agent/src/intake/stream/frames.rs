//! Bytes into the frames of the DogStatsD stream: a 4-byte little-endian length and a payload. [p]

/// A frame's payload is at most this many bytes. Clients send 8,192 unless configured otherwise.
pub const FRAME_BYTES_MAX: usize = 65_536;

const LENGTH_BYTES: usize = 4;

/// Splits what is read from one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed out.
    taken: usize,
}

/// A frame longer than [`FRAME_BYTES_MAX`]: either the client is misconfigured, or these are no
/// frames; nothing that follows can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OversizeFrame {
    pub(super) bytes: u32,
}

impl Frames {
    /// The buffer to append to what was read, with what was handed out removed.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        &mut self.buffer
    }

    /// The payload of the next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, OversizeFrame> {
        let Some((length, rest)) = self.rest().split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*length);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(OversizeFrame { bytes });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.taken.saturating_add(LENGTH_BYTES);
        self.taken = start.saturating_add(length);
        Ok(Some(&self.buffer[start..self.taken]))
    }

    /// Whether a frame has begun that is not whole.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.rest().is_empty()
    }

    /// What was not handed out: at the connection's end, a frame that is cut.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: &str) {
        for step in [1, 2, 3, 5, 1_000, 65_536, 1 << 20] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            'pieces: for piece in input.chunks(step) {
                frames.buffer().extend_from_slice(piece);
                loop {
                    match frames.next() {
                        Ok(None) => break,
                        Ok(Some(payload)) if payload.len() > 20 => {
                            found.push(payload.len().to_string())
                        }
                        Ok(Some(payload)) => {
                            found.push(format!("{:?}", String::from_utf8_lossy(payload)))
                        }
                        Err(frame) => {
                            found.push(format!("!{}", frame.bytes));
                            break 'pieces;
                        }
                    }
                }
                assert!(
                    frames.buffer().len() <= LENGTH_BYTES + FRAME_BYTES_MAX,
                    "the buffer is bounded"
                );
            }
            if !found.last().is_some_and(|last| last.starts_with('!')) && !frames.rest().is_empty()
            {
                found.push(format!("~{}", frames.rest().len()));
            }
            assert_eq!(found.join(" "), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn frames_are_found_however_they_arrive() {
        check(b"", "");
        check(b"\x05\0\0\0a:1|c\x00\0\0\0\x01\0\0\0b", r#""a:1|c" "" "b""#);
        check(b"\x05\0\0\0a:1", "~7");
        check(b"\x05\0", "~2");
        check(b"a:1|c\n", "!2083600993");
    }

    #[test]
    fn the_longest_frame_fits_and_a_longer_one_ends_it() {
        let mut input = b"\x00\0\x01\0".to_vec();
        input.extend(vec![b'x'; FRAME_BYTES_MAX]);
        check(&input, "65536");
        input.extend(b"\x01\0\x01\0xxxx");
        check(&input, "65536 !65537");
    }
}
