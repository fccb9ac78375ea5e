//! Lines that are not metered, packed into datagrams, each line's bytes as they were received.
//!
//! A datagram is packed up to [`PACKET_BYTES`], or as long as the one that its lines came in, so a server that
//! took the former takes the latter.

use std::collections::VecDeque;

use crate::intake::passage::RAW_BYTES_MAX;

/// What fits an Ethernet frame behind its headers, as DogStatsD clients pack.
pub const PACKET_BYTES: usize = 1_400;

/// One datagram to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub lines: u64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// What takes no more lines.
    Full,
    /// Everything.
    All,
}

/// Packs lines. Whoever feeds it takes the full packets after each datagram, so few wait.
#[derive(Debug, Default)]
pub struct Packer {
    full: VecDeque<Packet>,
    bytes: Vec<u8>,
    lines: u64,
    /// The length of the datagram whose lines come now.
    received_bytes: usize,
    left_out: u64,
}

impl Packer {
    /// Lines of a datagram of this length come next.
    pub(in crate::intake) fn begin(&mut self, received_bytes: usize) {
        self.received_bytes = received_bytes;
    }

    pub(in crate::intake) fn line(&mut self, line: &[u8]) {
        let length = self.bytes.len().saturating_add(line.len()).saturating_add(1);
        if self.lines > 0 && length > self.received_bytes.max(PACKET_BYTES) {
            self.close();
        }
        if self.lines > 0 {
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line);
        self.lines = self.lines.saturating_add(1);
    }

    /// A line of an acknowledged door, of which only the beginning is there if it is long. It may be JSON, which no
    /// DogStatsD server reads.
    pub(in crate::intake) fn kept_line(&mut self, raw: &[u8]) {
        if raw.len() >= RAW_BYTES_MAX || raw.trim_ascii_start().starts_with(b"{") {
            self.left_out = self.left_out.saturating_add(1);
        } else {
            self.begin(raw.len());
            self.line(raw);
        }
    }

    fn close(&mut self) {
        if self.lines > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            let lines = std::mem::take(&mut self.lines);
            self.full.push_back(Packet { bytes, lines });
        }
    }

    /// The next datagram; `None` once there is none of that kind.
    pub fn take(&mut self, packed: Packed) -> Option<Packet> {
        if packed == Packed::All && self.full.is_empty() {
            self.close();
        }
        self.full.pop_front()
    }

    /// Lines since the last call that cannot be forwarded, since they are JSON or were not kept whole.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each datagram is lines of these lengths; each packet is shown by its lines' lengths.
    fn check(datagrams: &[&[usize]], expected: &[&str]) {
        let mut packer = Packer::default();
        let mut found = Vec::new();
        let mut show = |packet: Packet| {
            let lines: Vec<_> = packet.bytes.split(|byte| *byte == b'\n').collect();
            assert_eq!(lines.len().to_string(), packet.lines.to_string());
            let lengths: Vec<_> = lines.iter().map(|line| line.len().to_string()).collect();
            found.push(lengths.join(" "));
        };
        for lines in datagrams {
            let received = lines.iter().sum::<usize>().saturating_add(lines.len());
            packer.begin(received.saturating_sub(1));
            lines.iter().for_each(|length| packer.line(&vec![b'x'; *length]));
            std::iter::from_fn(|| packer.take(Packed::Full)).for_each(&mut show);
        }
        std::iter::from_fn(|| packer.take(Packed::All)).for_each(&mut show);
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_packed_up_to_a_frame_or_what_was_received() {
        check(&[], &[]);
        check(&[&[10], &[20], &[30]], &["10 20 30"]);
        check(&[&[700, 699]], &["700 699"]);
        check(&[&[700], &[700]], &["700", "700"]);
        check(&[&[5_000]], &["5000"]);
        check(&[&[4_000, 4_000], &[10]], &["4000 4000", "10"]);
        check(&[&[10], &[4_000, 4_000]], &["10 4000", "4000"]);
    }

    #[test]
    fn a_line_that_is_json_or_was_not_kept_whole_is_only_counted() {
        let mut packer = Packer::default();
        packer.kept_line(&[b'x'; RAW_BYTES_MAX]);
        packer.kept_line(br#"{"meter":"a","quantity":1}"#);
        packer.kept_line(b"a:1|c");
        packer.kept_line(br#" {"meter":"a","quantity":1}"#);
        assert_eq!((packer.take_left_out(), packer.take_left_out()), (3, 0));
        let packet = packer.take(Packed::All).unwrap();
        assert_eq!((packet.bytes.as_slice(), packet.lines), (&b"a:1|c"[..], 1));
        assert_eq!(packer.take(Packed::All), None);
    }
}
