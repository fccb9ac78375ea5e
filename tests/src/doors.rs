//! Senders: one for each door that takes lines. (The HTTP door is sent to with [`crate::http`].)
//!
//! **Owns** the framing of each door, written from the documentation. **Does not own** when to send
//! again: [`crate::resend`] does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::ops::Range;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// A dead agent is noticed after at most this long.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Sends one line of the meter `api.calls` for each id to `events.socket`, and waits until all are durable.
///
/// # Errors
/// A line that is refused, or an agent that is gone.
pub fn send_durably(events: &Path, source: &str, ids: Range<u32>) -> Result<()> {
    let mut lines = Lines::to(events)?;
    let count = u64::try_from(ids.len())?;
    let text: String =
        ids.map(|id| format!("api.calls:1|c|#customer:acme,source:{source},id:{id}\n")).collect();
    lines.send(text.as_bytes(), count)?;
    let refusals = lines.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

/// Datagrams to the UDP door.
#[derive(Debug)]
pub struct Udp(UdpSocket);

impl Udp {
    /// # Errors
    /// When there is no socket to be had.
    pub fn to(port: u16) -> Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST, port)
    }

    /// The same at another address.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn at(host: Ipv4Addr, port: u16) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((host, port))?;
        Ok(Self(socket))
    }

    /// # Errors
    /// When the kernel knows that nobody listens.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        let sent = self.0.send(datagram)?;
        ensure!(sent == datagram.len(), "sent {sent} of {} bytes", datagram.len());
        Ok(())
    }
}

/// Datagrams to `dsd.socket`.
#[derive(Debug)]
pub struct Datagrams(UnixDatagram);

impl Datagrams {
    /// # Errors
    /// When nobody listens.
    pub fn to(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).with_context(|| format!("failed to reach {}", path.display()))?;
        Ok(Self(socket))
    }

    /// Waits while the kernel's queue is full.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        let sent = self.0.send(datagram)?;
        ensure!(sent == datagram.len(), "sent {sent} of {} bytes", datagram.len());
        Ok(())
    }
}

/// Frames to `dsd-stream.socket`.
#[derive(Debug)]
pub struct Frames(UnixStream);

impl Frames {
    /// # Errors
    /// When nobody listens.
    pub fn to(path: &Path) -> Result<Self> {
        Ok(Self(connect(path)?))
    }

    /// Has a send fail that the agent takes nothing of for so long.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give_up_after(&self, longest: Duration) -> Result<()> {
        Ok(self.0.set_write_timeout(Some(longest))?)
    }

    /// A length (4 bytes, little-endian) and the payload.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut frame = u32::try_from(payload.len())?.to_le_bytes().to_vec();
        frame.extend_from_slice(payload);
        self.send_raw(&frame)
    }

    /// Bytes that need not be a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes)?)
    }
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// The line's number in its connection, from 1.
    pub rejected: u64,
    pub reason: String,
    pub remedy: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Durable { durable: u64 },
    Refusal(Refusal),
}

/// Lines to `events.socket`, and its answers.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    sent: u64,
    durable: u64,
}

impl Lines {
    /// # Errors
    /// When nobody listens.
    pub fn to(path: &Path) -> Result<Self> {
        let stream = connect(path)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        let answers = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, answers, sent: 0, durable: 0 })
    }

    /// Has a send fail that the agent takes nothing of for so long.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give_up_after(&self, longest: Duration) -> Result<()> {
        Ok(self.stream.set_write_timeout(Some(longest))?)
    }

    /// Sends `text`, which holds `lines` line ends, and does not wait.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, text: &[u8], lines: u64) -> Result<()> {
        self.stream.write_all(text)?;
        self.sent = self.sent.checked_add(lines).context("lines fit 64 bits")?;
        Ok(())
    }

    /// Says that nothing more comes; an unterminated last line counts as a line.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn finish(&mut self, unterminated: u64) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.sent = self.sent.checked_add(unterminated).context("lines fit 64 bits")?;
        Ok(())
    }

    /// How many lines were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until all lines sent are durable or refused; returns the refusals.
    ///
    /// # Errors
    /// When the connection ends before. What was not acknowledged must be sent again.
    pub fn wait_durable(&mut self) -> Result<Vec<Refusal>> {
        self.wait_durable_to(self.sent)
    }

    /// The same for the first `line` lines only.
    ///
    /// # Errors
    /// When the connection ends before. What was not acknowledged must be sent again.
    pub fn wait_durable_to(&mut self, line: u64) -> Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut text = String::new();
        while self.durable < line {
            text.clear();
            if self.answers.read_line(&mut text)? == 0 {
                bail!("the agent closed the connection");
            }
            match serde_json::from_str(&text).with_context(|| format!("answered {text:?}"))? {
                Answer::Refusal(refusal) => refusals.push(refusal),
                Answer::Durable { durable } => {
                    let sound = durable > self.durable && durable <= self.sent;
                    ensure!(sound, "{durable} durable after {} of {}", self.durable, self.sent);
                    self.durable = durable;
                }
            }
        }
        Ok(refusals)
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).with_context(|| format!("failed to reach {}", path.display()))
}
