//! An open link to a collector: frames in, frames out, over whichever transport carries it.
//!
//! **Owns** the frames' bytes on their way. **Does not own** how a link is made (`quic`, `tcp`), or
//! which transport is chosen (`chooser`).
//!
//! Reading and writing are cancel-safe: what was half done goes on at the next call, so the driver
//! may wait for both at once.

use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tidemark_common::wire::{CONTROL_BYTES_MAX, Frame, FrameBuffer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::chooser::Transport;
use super::{LinkError, explain};

/// Bytes that the collector may send before they are read: two of its largest frames.
pub(super) const RECEIVE_WINDOW_BYTES: usize = 2 * CONTROL_BYTES_MAX;
/// Bytes asked for in one read.
pub(super) const READ_BYTES: usize = 16 << 10;

/// An open link. Its two ends are used independently.
#[derive(Debug)]
pub struct Link {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub handle: LinkHandle,
}

/// Measures and closes a link.
#[derive(Debug)]
pub enum LinkHandle {
    Quic {
        endpoint: Endpoint,
        connection: Connection,
    },
    /// It closes with its two ends.
    Tcp,
}

#[derive(Debug)]
enum Receiving {
    Quic(RecvStream),
    Tcp(ReadHalf<TlsStream<TcpStream>>),
}

#[derive(Debug)]
enum Sending {
    Quic(SendStream),
    Tcp(WriteHalf<TlsStream<TcpStream>>),
}

impl Link {
    pub(super) fn over_quic(
        endpoint: Endpoint,
        connection: Connection,
        (send, receive): (SendStream, RecvStream),
    ) -> Self {
        Self {
            reader: FrameReader::new(Receiving::Quic(receive)),
            writer: FrameWriter::new(Sending::Quic(send)),
            handle: LinkHandle::Quic { endpoint, connection },
        }
    }

    pub(super) fn over_tcp(stream: TlsStream<TcpStream>) -> Self {
        let (receive, send) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(Receiving::Tcp(receive)),
            writer: FrameWriter::new(Sending::Tcp(send)),
            handle: LinkHandle::Tcp,
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct FrameReader {
    stream: Receiving,
    buffer: FrameBuffer,
    chunk: Vec<u8>,
}

impl FrameReader {
    fn new(stream: Receiving) -> Self {
        Self { stream, buffer: FrameBuffer::default(), chunk: vec![0; READ_BYTES] }
    }

    /// The next frame. Cancel-safe.
    ///
    /// # Errors
    /// The end of the link, or bytes that are no frame.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(frame);
            }
            let read = match &mut self.stream {
                Receiving::Quic(stream) => {
                    stream.read(&mut self.chunk).await.map_err(explain::read)?.unwrap_or(0)
                }
                Receiving::Tcp(stream) => {
                    stream.read(&mut self.chunk).await.map_err(|error| explain::tcp(&error))?
                }
            };
            if read == 0 {
                return Err(LinkError::Closed { reason: String::new() });
            }
            self.buffer.push(self.chunk.get(..read).unwrap_or_default());
        }
    }
}

/// The sending end. It holds one frame at a time, so what waits to be sent waits on disk.
#[derive(Debug)]
pub struct FrameWriter {
    stream: Sending,
    /// Empty once all is handed to the transport.
    bytes: Vec<u8>,
    written: usize,
}

impl FrameWriter {
    fn new(stream: Sending) -> Self {
        Self { stream, bytes: Vec::new(), written: 0 }
    }

    /// Whether [`Self::put`] may be called.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next frame, to be written by [`Self::flush`].
    ///
    /// # Errors
    /// A frame that breaks a limit of its own format.
    pub fn put(&mut self, frame: &Frame) -> Result<(), LinkError> {
        assert!(self.is_idle(), "a frame is put only after the one before is written");
        self.bytes = frame.encode()?;
        self.written = 0;
        Ok(())
    }

    /// Writes what was put. Cancel-safe.
    ///
    /// # Errors
    /// The end of the link.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = match &mut self.stream {
                Sending::Quic(stream) => stream.write(rest).await.map_err(explain::write)?,
                Sending::Tcp(stream) => {
                    stream.write(rest).await.map_err(|error| explain::tcp(&error))?
                }
            };
            self.written = self.written.saturating_add(written);
        }
        if let Sending::Tcp(stream) = &mut self.stream {
            // What TLS has sealed and the socket has not taken yet.
            stream.flush().await.map_err(|error| explain::tcp(&error))?;
        }
        self.bytes = Vec::new();
        self.written = 0;
        Ok(())
    }

    /// Ends the stream. Over QUIC this waits until the other end's transport has all of it; over TCP only
    /// the other end's own end tells.
    ///
    /// # Errors
    /// The end of the link before that.
    pub async fn finish(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        match &mut self.stream {
            Sending::Quic(stream) => {
                // Finished before is finished.
                drop(stream.finish());
                match stream.stopped().await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(explain::write(error.into())),
                }
            }
            Sending::Tcp(stream) => stream.shutdown().await.map_err(|error| explain::tcp(&error)),
        }
    }
}

impl LinkHandle {
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self {
            Self::Quic { .. } => Transport::Quic,
            Self::Tcp => Transport::Tcp,
        }
    }

    /// The smoothed round trip time, where the transport measures it.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Quic { connection, .. } => Some(connection.rtt()),
            Self::Tcp => None,
        }
    }

    /// Closes the link. The other end is told in the background.
    pub fn close(&self) {
        match self {
            Self::Quic { connection, .. } => connection.close(VarInt::from_u32(0), b""),
            Self::Tcp => {}
        }
    }

    /// Closes the link and waits until the other end was told.
    pub async fn close_and_wait(self, wait_max: Duration) {
        self.close();
        match self {
            // Whoever does not hear of it finds out by its idle timeout.
            Self::Quic { endpoint, .. } => {
                drop(tokio::time::timeout(wait_max, endpoint.wait_idle()).await);
            }
            Self::Tcp => {}
        }
    }
}
