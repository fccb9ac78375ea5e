//! A stream of its own on a ledger that is open in this process, without an agent.

use anyhow::{Result, bail};
use tidemark_collector::ledger::Ledger;
use tidemark_collector::ledger::request::{HelloRequest, Reply, Request};
use tidemark_common::batch::genesis;
use tidemark_common::id::{Fence, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::Hello;

/// Says hello for a new stream with batches of this body version.
pub(crate) async fn welcome(
    ledger: &Ledger,
    (stream, opening): (StreamId, OpeningId),
    body_version: u16,
) -> Result<Fence> {
    let hello = Hello {
        header_version: 1,
        body_version,
        stream,
        ledger: None,
        opening,
        posted_sequence: Sequence::ZERO,
        posted_digest: genesis(ledger.ledger(), stream),
        sealed_sequence: Sequence::ZERO,
        accepted: 0,
        rules_version: RulesVersion(0),
        openings: Vec::new(),
        clock: Timestamp(0),
        token: None,
        agent: "test".to_owned(),
        extras: Vec::new(),
    };
    let (agent, said) = (AgentName::parse("agent")?, ledger.monotonic());
    let hello = Request::Hello(Box::new(HelloRequest { hello, agent, said }));
    let Reply::Welcomed(welcomed) = ledger.submit(hello).await?.await? else {
        bail!("the stream is not welcome")
    };
    Ok(welcomed.fence)
}
