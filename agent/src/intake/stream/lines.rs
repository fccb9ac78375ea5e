//! Bytes into lines, with a limit on a line's length. [p]
//!
//! A line that is too long is reported once, as soon as it is; the rest of it is skipped, and the
//! line after it is read as if nothing had been.

/// A line is at most this many bytes, its end not counted.
pub const LINE_BYTES_MAX: usize = 65_536;

/// Splits what is read from one connection.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed out.
    taken: usize,
    /// Bytes of the buffer that hold no line's end.
    searched: usize,
    skipping: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Without its end, `\n` or `\r\n`.
    Whole(&'a [u8]),
    /// The beginning of a line that is too long.
    Oversize(&'a [u8]),
}

impl Lines {
    /// The buffer to append to what was read, with what was handed out removed.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.taken);
        self.searched = self.searched.saturating_sub(self.taken);
        self.taken = 0;
        &mut self.buffer
    }

    /// The next line that is complete, or known to be too long.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let start = self.taken;
            let Some(position) = unsearched.iter().position(|&byte| byte == b'\n') else {
                return self.unfinished();
            };
            let end = self.searched.saturating_add(position);
            self.taken = end.saturating_add(1);
            self.searched = self.taken;
            if std::mem::replace(&mut self.skipping, false) {
                continue;
            }
            let line = &self.buffer[start..end];
            if line.len() > LINE_BYTES_MAX {
                return Some(Line::Oversize(&line[..LINE_BYTES_MAX]));
            }
            return Some(Line::Whole(line.strip_suffix(b"\r").unwrap_or(line)));
        }
    }

    /// Whether a line has begun that has not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        self.skipping || self.taken < self.buffer.len()
    }

    /// What came after the last line's end, when no more will come; `None` if that is nothing, or
    /// the rest of a line that was reported as too long.
    pub(super) fn end(&mut self) -> Option<&[u8]> {
        let start = std::mem::replace(&mut self.taken, self.buffer.len());
        self.searched = self.taken;
        let rest = &self.buffer[start..];
        (!rest.is_empty() && !self.skipping).then_some(rest)
    }

    fn unfinished(&mut self) -> Option<Line<'_>> {
        self.searched = self.buffer.len();
        let start = self.taken;
        let length = self.buffer.len().saturating_sub(start);
        if self.skipping {
            self.taken = self.buffer.len();
            return None;
        }
        if length <= LINE_BYTES_MAX {
            return None;
        }
        self.skipping = true;
        self.taken = self.buffer.len();
        Some(Line::Oversize(&self.buffer[start..start.saturating_add(LINE_BYTES_MAX)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes. Short lines are shown as they are, long ones by
    /// their length; `!` marks one that is too long, `~` what is left at the end.
    fn split(input: &[u8], step: usize) -> Vec<String> {
        fn show(mark: &str, bytes: &[u8]) -> String {
            match bytes.len() {
                0..=20 => format!("{mark}{}", String::from_utf8_lossy(bytes)),
                length => format!("{mark}{length}"),
            }
        }
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in input.chunks(step) {
            lines.buffer().extend_from_slice(piece);
            while let Some(line) = lines.next() {
                found.push(match line {
                    Line::Whole(line) => show("", line),
                    Line::Oversize(line) => show("!", line),
                });
            }
            assert!(lines.buffer().len() <= LINE_BYTES_MAX, "the buffer is bounded");
        }
        found.extend(lines.end().map(|rest| show("~", rest)));
        found
    }

    fn check(input: &[u8], expected: &[&str]) {
        for step in [1, 2, 3, 7, 1_000, 65_536, 65_537, 1 << 20] {
            assert_eq!(split(input, step), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
        check(b"", &[]);
        check(b"a\nbc\n", &["a", "bc"]);
        check(b"a\r\n\r\n\n \nb", &["a", "", "", " ", "~b"]);
        check(b"a\rb\n\r", &["a\rb", "~\r"]);
        check(b"\xff\x00\nx\n", &["\u{fffd}\0", "x"]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let most = "m".repeat(LINE_BYTES_MAX);
        check(format!("a\n{most}\nb\n").as_bytes(), &["a", "65536", "b"]);
        check(format!("a\n{most}m\nb\n").as_bytes(), &["a", "!65536", "b"]);
        check(
            format!("{most}{most}{most}\n{most}\n\nb").as_bytes(),
            &["!65536", "65536", "", "~b"],
        );
        check(format!("{most}{most}").as_bytes(), &["!65536"]);
        check(most.as_bytes(), &["~65536"]);
    }
}
