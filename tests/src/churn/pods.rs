//! Pods, as far as the ledger meets them: an agent each, with a stream of its own and one batch.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use tidemark_collector::dedupe::Verdict;
use tidemark_collector::ledger::Ledger;
use tidemark_collector::ledger::request::{Admission, HelloRequest, Reply, Request, Welcomed};
use tidemark_collector::session::claim::ClaimVerdict;
use tidemark_common::batch::{
    BodyWriter, Evidence, LineValue, NewHeader, SealedBatch, genesis, series_bytes,
};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{
    Digest, EventNumber, Fence, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Close, Confirm, Hello};
use tokio::sync::oneshot;

/// A pod accepts so many, in two lines.
pub(super) const EVENTS_PER_POD: u64 = 2;
/// So many deployments, each with an identity of its own, make all pods.
const AGENTS: u64 = 1_000;
const SEQUENCE: Sequence = Sequence(1);
const MILLIS_PER_BUCKET: i64 = 900_000;

/// One that came.
pub(super) struct Pod {
    pub(super) number: u64,
    stream: StreamId,
    fence: Fence,
}

/// The identity of a pod's deployment.
pub(super) fn agent(number: u64) -> Result<AgentName> {
    Ok(AgentName::parse(&format!("service-{:04}", number % AGENTS))?)
}

/// As if random, and another for each number: the finalizer of splitmix64, which loses nothing.
fn stream(number: u64) -> StreamId {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let mut id = [7; 16];
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    StreamId(id)
}

/// These come: hello, a batch, and a confirmation that all of it is posted.
pub(super) async fn arrive(ledger: &Ledger, numbers: Range<u64>) -> Result<Vec<Pod>> {
    let mut greetings = Vec::new();
    for number in numbers {
        let (stream, said) = (stream(number), ledger.monotonic());
        let hello =
            HelloRequest { hello: hello(ledger.ledger(), stream), agent: agent(number)?, said };
        let reply = ledger.submit(Request::Hello(Box::new(hello))).await?;
        greetings.push((number, stream, reply));
    }
    let (mut pods, mut replies) = (Vec::new(), Vec::new());
    for (number, stream, reply) in greetings {
        let fence = match reply.await? {
            Reply::Welcomed(Welcomed { fence, .. }) => fence,
            other => bail!("pod {number}: {other:?}"),
        };
        let batch = batch(ledger, stream)?;
        let admission = Admission::open(batch.header, batch.bytes, fence);
        replies.push(ledger.submit(Request::Admit(Box::new(admission))).await?);
        pods.push(Pod { number, stream, fence });
    }
    for reply in replies {
        let reply = reply.await?;
        let admitted = matches!(reply, Reply::Judged { verdict: Verdict::Admit, .. });
        ensure!(admitted, "{reply:?}");
    }
    confirm(ledger, pods.iter()).await?;
    Ok(pods)
}

/// All that these accepted is posted, say their agents.
pub(super) async fn confirm(ledger: &Ledger, pods: impl Iterator<Item = &Pod>) -> Result<()> {
    let mut replies = Vec::new();
    for Pod { stream, fence, .. } in pods {
        let (sequence, accepted) = (SEQUENCE, EVENTS_PER_POD);
        let (ledger_time, fence, extras) = (ledger.now(), *fence, Vec::new());
        let confirm = Confirm { ledger_time, sequence, accepted, fence, extras };
        replies.push(ledger.submit(Request::Confirm { stream: *stream, confirm }).await?);
    }
    taken(replies).await
}

/// These leave, and say that nothing is left of them.
pub(super) async fn close(ledger: &Ledger, pods: impl Iterator<Item = Pod>) -> Result<()> {
    let mut replies = Vec::new();
    for Pod { stream, fence, .. } in pods {
        let (sequence, accepted, extras) = (SEQUENCE, EVENTS_PER_POD, Vec::new());
        let close = Close { sequence, accepted, fence, extras };
        replies.push(ledger.submit(Request::Close { stream, close }).await?);
    }
    taken(replies).await
}

async fn taken(replies: Vec<oneshot::Receiver<Reply>>) -> Result<()> {
    for reply in replies {
        let reply = reply.await?;
        ensure!(reply == Reply::Claimed(ClaimVerdict::Take), "{reply:?}");
    }
    Ok(())
}

/// Whatever is committed takes the clock's limit along: twice, and ledger time is that of the wall.
pub(super) async fn tick(ledger: &Ledger) -> Result<()> {
    for _ in 0..2 {
        let close =
            Close { sequence: Sequence::ZERO, accepted: 0, fence: Fence(0), extras: Vec::new() };
        let reply = ledger.submit(Request::Close { stream: StreamId([0; 16]), close }).await?;
        let _not_open = reply.await?;
    }
    Ok(())
}

fn hello(ledger: LedgerId, stream: StreamId) -> Hello {
    Hello {
        header_version: 1,
        body_version: 1,
        stream,
        ledger: Some(ledger),
        opening: OpeningId(stream.0),
        posted_sequence: Sequence::ZERO,
        posted_digest: Digest([0; 32]),
        sealed_sequence: SEQUENCE,
        accepted: EVENTS_PER_POD,
        rules_version: RulesVersion(1),
        openings: Vec::new(),
        clock: Timestamp(0),
        token: None,
        agent: "churn".to_owned(),
        extras: Vec::new(),
    }
}

fn batch(ledger: &Ledger, stream: StreamId) -> Result<SealedBatch> {
    let bucket = Bucket(u32::try_from(ledger.now().0 / MILLIS_PER_BUCKET)?);
    let mut evidence = Evidence::default();
    evidence.add(EvidenceCode::Accepted, EVENTS_PER_POD);
    let mut body = BodyWriter::new([9; 32], &evidence);
    for customer in ["acme", "globex"] {
        let quantity = Quantity(1_000_000_000);
        let value = LineValue {
            events: 1,
            quantity_events: 1,
            sum: quantity,
            min: quantity,
            max: quantity,
            latest_time: bucket.start(),
            latest: quantity,
            ..LineValue::default()
        };
        body.line(&series_bytes("calls", customer, &[]), bucket, 0, &value)?;
    }
    let header = NewHeader {
        stream,
        opening: OpeningId(stream.0),
        sequence: SEQUENCE,
        first_event: EventNumber(0),
        end_event: EventNumber(EVENTS_PER_POD),
        rules: RulesVersion(1),
        previous: genesis(ledger.ledger(), stream),
    };
    Ok(SealedBatch::assemble(header, body.finish()?))
}
