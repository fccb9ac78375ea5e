//! Makes a link to one collector: the name's addresses side by side, each over the transports that the
//! chooser names.
//!
//! **Owns** the race between addresses and between transports, and which failure is told. **Does not
//! own** the order (`chooser`), or a transport's own handshake (`quic`, `tcp`).

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::tls::Pem;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::chooser::{Order, Transport};
use super::link::Link;
use super::{LinkError, LinkTimes, quic, tcp};

/// Of the addresses that a collector's name stands for, this many are tried at once.
const ADDRESSES_AT_ONCE: usize = 4;
/// Further addresses of a name are not looked at.
const ADDRESSES_MAX: usize = 64;
/// An address is tried this long before the next one is tried beside it.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// Where to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port`
    pub collector: String,
    pub server_name: String,
    pub pem: Arc<Pem>,
    pub times: LinkTimes,
}

impl Target {
    /// Connects at the first of the collector's addresses that answers. They are begun a moment apart:
    /// `localhost` is often two addresses of which one leads nowhere, and QUIC learns that only by
    /// silence. Of a name with many addresses, each round tries the next few.
    ///
    /// # Errors
    /// The most telling of what happened at its addresses.
    pub async fn connect(self, order: Order, round: usize) -> Result<Link, LinkError> {
        let addresses = self.resolve().await?;
        let skipped = round.saturating_mul(ADDRESSES_AT_ONCE);
        let skipped = skipped.checked_rem(addresses.len()).unwrap_or(0);
        let mut attempts = JoinSet::new();
        let mut begin_after = Duration::ZERO;
        let turns = addresses.iter().cycle().skip(skipped);
        for address in turns.take(addresses.len().min(ADDRESSES_AT_ONCE)).copied() {
            let target = self.clone();
            attempts.spawn(async move {
                sleep(begin_after).await;
                target.connect_at(address, order).await
            });
            begin_after = begin_after.saturating_add(ADDRESS_HEAD_START);
        }
        let mut failure = LinkError::NoAddress;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => {
                    if failure.is_silence() {
                        failure = error;
                    }
                }
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => failure = LinkError::Start { reason: error.to_string() },
                },
            }
        }
        Err(failure)
    }

    /// The addresses that the name stands for now.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, LinkError> {
        let looked_up = tokio::net::lookup_host(&self.collector);
        let after = self.times.connect_max;
        let found = match timeout(after, looked_up).await {
            Ok(found) => found.map_err(LinkError::Resolve)?,
            Err(_) => return Err(LinkError::ResolveOverdue { after }),
        };
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        if addresses.is_empty() { Err(LinkError::NoAddress) } else { Ok(addresses) }
    }

    /// Connects at one address, over whichever of the order's transports is up first.
    async fn connect_at(&self, address: SocketAddr, order: Order) -> Result<Link, LinkError> {
        let head_start = self.times.transport_head_start;
        race(order, head_start, |transport| self.connect_over(transport, address)).await
    }

    async fn connect_over(
        &self,
        transport: Transport,
        address: SocketAddr,
    ) -> Result<Link, LinkError> {
        match transport {
            Transport::Quic => {
                quic::connect(&self.pem, &self.server_name, address, self.times).await
            }
            Transport::Tcp => tcp::connect(&self.pem, &self.server_name, address, self.times).await,
        }
    }
}

/// The first transport; where it finds silence, the second beside it. Whichever is up first wins.
async fn race<C: Future<Output = Result<Link, LinkError>>>(
    order: Order,
    head_start: Duration,
    connect: impl Fn(Transport) -> C,
) -> Result<Link, LinkError> {
    let Some(second) = order.second else {
        return connect(order.first).await;
    };
    let mut first = pin!(connect(order.first));
    let mut silent = None;
    tokio::select! {
        connected = &mut first => match connected {
            Err(error) if error.is_silence() => silent = Some(error),
            said => return said,
        },
        () = sleep(head_start) => {}
    }
    let mut second = pin!(connect(second));
    if let Some(error) = silent {
        return second.await.map_err(|other| LinkError::neither(error, other));
    }
    tokio::select! {
        connected = &mut first => match connected {
            Err(error) if error.is_silence() => {
                second.await.map_err(|other| LinkError::neither(error, other))
            }
            said => said,
        },
        connected = &mut second => match connected {
            Err(other) if other.is_silence() => {
                first.await.map_err(|error| LinkError::neither(error, other))
            }
            said => said,
        },
    }
}
