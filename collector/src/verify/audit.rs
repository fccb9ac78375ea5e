//! A certificate against the archive: every chain of digests, the whole usage tree and the sums, computed again.
//!
//! ```text
//! certificate --signature, digest--> head, statement      archive's batches --chains--> streams' texts --> streams_root
//!                                                           lines + corrections --gathered--> texts, days, tree --> usage_root
//! ```
//! **Owns** the steps. **Does not own** the archive's format (`archive`), or the bytes of a batch (`tidemark_common::batch`,
//! which checks a body against its header).
//!
//! Limits: in memory are one object of the archive, about 250 bytes for each row of usage (and 36 for each unique value), 110
//! for each stream and for each customer, and the texts of one customer.

mod chains;
mod gathered;
mod statement;

use tidemark_common::batch::Body;
use tidemark_common::hex;

use super::certificate::Head;
use super::json::{self, Fields};
use super::report::CertificateReport;
use super::tree::{self, Salt};
use super::{FILE_BYTES_MAX, Keys, Refusal, ensure};
use crate::archive::ArchiveError;
use crate::archive::read::Archive;
use chains::{Chains, Taken};
use gathered::{Corrections, Gathered, Judged, Sums};
use statement::Statement;

/// Verifies the bytes of `certificate.json` with the batches that it counts; with the texts of its streams, if they are given.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(
    certificate: &[u8],
    archive: &Archive,
    streams: Option<&[u8]>,
    keys: Option<&Keys>,
) -> Result<CertificateReport, Refusal> {
    let (head, statement) = read(certificate)?;
    if let Some(keys) = keys {
        keys.hold(&head.ledger, &head.key, "the certificate")?;
    }
    check_ledger(&head, archive)?;
    let mut chains = Chains::new(head.ledger);
    let mut gathered = Gathered::new(head.from_day);
    let counted = take_batches(&head, archive, &mut chains, &mut gathered)?;
    let corrections = Corrections::read(archive, head.entries, head.from_day)?;

    let salt = Salt::new(&statement.salt);
    let mut leaves = Vec::new();
    let sums = gathered.each_customer(corrections, &mut |customer, days| {
        let position = salt.position(customer);
        leaves.push((position, tree::leaf(&position, &tree::customer(customer, days)?)));
        Ok(())
    })?;
    statement.check_usage(&sums)?;
    let root = salt.root(&mut leaves)?;
    ensure(root == head.usage_root, "the usage tree", || {
        let [own, other] = [&root, &head.usage_root].map(|root| hex::encode(root));
        format!("the batches come to {own}, and the certificate says {other}")
    })?;
    statement.check_events(chains.events(), chains.quarantined_events())?;
    let listed = streams.map(|texts| chains.check_texts(texts, &head.streams_root)).transpose()?;
    ensure(listed.is_none_or(|listed| listed == statement.listed), "the streams", || {
        format!(
            "there are {} texts, and the statement lists {}",
            listed.unwrap_or(0),
            statement.listed
        )
    })?;
    let Sums { customers, days, rows, corrections, .. } = sums;
    Ok(CertificateReport {
        number: head.number,
        ledger: hex::encode(&head.ledger),
        digest: hex::encode(&head.digest),
        key: hex::encode(&head.key),
        keys_compared: keys.is_some(),
        as_of: head.as_of,
        complete_through: head.complete_through,
        batches: counted.batches,
        batches_again: counted.again,
        set_aside: counted.set_aside,
        readable_set_aside: counted.readable,
        streams: chains.len(),
        streams_listed: listed,
        events: chains.events(),
        customers,
        days,
        rows,
        corrections,
        findings: statement.findings,
        waivers: statement.waivers,
        policies: statement.policies,
    })
}

/// `{"head":TEXT,"signature":HEX,"statement":TEXT}` and a line feed.
fn read(bytes: &[u8]) -> Result<(Head, Statement), Refusal> {
    let place = "the certificate";
    ensure(bytes.len() <= FILE_BYTES_MAX, place, || "the file is too long".to_owned())?;
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(place, "it is no UTF-8"))?;
    let text = text.strip_suffix('\n');
    let text = text.ok_or_else(|| Refusal::new(place, "it does not end with a line feed"))?;
    let value = json::parse(text, place)?;
    let mut fields = Fields::of(&value, place)?;
    let (head, signature) = (fields.text("head")?, fields.hex("signature")?);
    let statement = fields.text("statement")?;
    fields.finish()?;
    let head = Head::read(head, &signature)?;
    ensure(tree::hash(&[statement.as_bytes()]) == head.statement, place, || {
        "the statement is not the one whose digest is signed".to_owned()
    })?;
    Ok((head, Statement::read(statement)?))
}

fn of_archive(error: &ArchiveError) -> Refusal {
    Refusal::new("the archive", error.to_string())
}

fn check_ledger(head: &Head, archive: &Archive) -> Result<(), Refusal> {
    let Some(first) = archive.manifests().next() else {
        return Err(Refusal::new("the archive", "it is empty: there is no manifest in the folder"));
    };
    let first = first.map_err(|error| of_archive(&error))?;
    let own = hex::encode(&head.ledger);
    ensure(first.ledger == own, "the archive", || {
        format!("it is of the ledger {}, and the certificate of {own}", first.ledger)
    })
}

#[derive(Debug, Default)]
struct Counted {
    batches: u64,
    /// That came again, of a ledger that was restored.
    again: u64,
    set_aside: u64,
    /// Set aside, and could be read.
    readable: u64,
}

/// The first batches of the archive, as many as the certificate counts.
fn take_batches(
    head: &Head,
    archive: &Archive,
    chains: &mut Chains,
    gathered: &mut Gathered,
) -> Result<Counted, Refusal> {
    let mut counted = Counted::default();
    for batch in archive.batches() {
        if counted.batches >= head.batches {
            break;
        }
        let batch = batch.map_err(|error| of_archive(&error))?;
        let header = &batch.header;
        let place =
            format!("batch {} of the stream {}", header.sequence.0, hex::encode(&header.stream.0));
        if chains.take(&batch, &place)? == Taken::Again {
            counted.again = counted.again.saturating_add(1);
            continue;
        }
        counted.batches = counted.batches.saturating_add(1);
        let body = Body::open(header, batch.body());
        if batch.quarantined.is_some() {
            counted.set_aside = counted.set_aside.saturating_add(1);
            counted.readable = counted.readable.saturating_add(u64::from(body.is_ok()));
            continue;
        }
        let body = body.map_err(|error| Refusal::new(&place, error.to_string()))?;
        let suppressed = batch.suppressed().map_err(|what| Refusal::new(&place, what))?;
        gathered.take(&body.lines, Judged { marks: &batch.marks, suppressed }, &place)?;
    }
    ensure(counted.batches == head.batches, "the archive", || {
        format!("it has {} batches, and the certificate counts {}", counted.batches, head.batches)
    })?;
    Ok(counted)
}
