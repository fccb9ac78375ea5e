//! A run's certificate: made of its one cut, and booked, before the first document that names it.
//!
//! **Owns** when that is, and that it is once. **Does not own** what stands in a certificate or a proof (`certificate`).
//!
//! Reads block.

#[cfg(test)]
use std::sync::Arc;

use tidemark_common::id::CustomerId;

use super::gated::Gated;
#[cfg(test)]
use super::{Drafted, RunRequest};
use super::{KeptBack, Problem};
#[cfg(test)]
use crate::catalog::Catalog;
use crate::certificate::make::{CertifyError, Cut, Made, make};
use crate::certificate::proof::Provenance;
use crate::certificate::{bundle, last};
#[cfg(test)]
use crate::ledger::Ledger;
use crate::ledger::books::{Change, Issue, Refused, What};
use crate::reconcile::{
    Certainty, Finding, Gate, Judging, Kind, Reconciliation, Scope, Span, losses, waivers,
};
use crate::verify::{Refusal, verify_invoice};

/// So often another run may certify just before this one does.
const TRIES_MAX: u32 = 5;

fn uncertified(error: impl std::fmt::Display) -> Problem {
    Problem::Certify(error.to_string())
}

fn charges_differ(id: &CustomerId, refusal: &Refusal, gate: &Gate) -> Finding {
    let Reconciliation { from, at, .. } = gate.reconciliation;
    Finding {
        kind: Kind::ChargesDiffer,
        id: format!("charges/{}", id.as_str()),
        told: format!("computed a second time, the invoice is another one: {refusal}"),
        remedy: "it is a defect of this program: report it with a dry run; if the invoice is right all the same, waive it with --events-max 0, but nobody will be able to verify it".to_owned(),
        events: 0,
        certainty: Certainty::Exact,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: None,
        scope: Scope::Customer(id.clone()),
        span: Span { from, to: at },
        since: at,
        cover: None,
    }
}

impl Gated {
    /// Gives a document that passes its certificate and its proof.
    pub(super) fn prove(
        &self,
        id: &CustomerId,
        issue: &mut Issue,
        provenance: &Provenance,
    ) -> Result<(), Problem> {
        let made = self.made.get_or_init(|| self.certify());
        let made = made.as_ref().map_err(|told| Problem::Certify(told.clone()))?;
        if let Some(cut) = &mut issue.document.cut {
            cut.certificate = Some(made.certified.clone());
        }
        let proof = provenance.proof(&self.catalog, id, made, &self.snapshot)?;
        self.rate_again(id, issue, made, &proof)?;
        let kept = bundle::kept(&proof).map_err(uncertified)?;
        issue.proof = Some(kept);
        Ok(())
    }

    /// Verifies the document as its customer will: by another path, from the usage in its proof to its total. What differs
    /// is a finding, which a person may waive.
    fn rate_again(
        &self,
        id: &CustomerId,
        issue: &Issue,
        made: &Made,
        proof: &str,
    ) -> Result<(), Problem> {
        let signer = self.ledger.signer().ok_or_else(|| uncertified(CertifyError::NoKey))?;
        let mut document = issue.document.clone();
        // What the books give it stands for nothing here.
        document.number = Some("DRAFT".to_owned());
        let given = [&mut document.date, &mut document.due_date, &mut document.issued_at];
        given.into_iter().for_each(|text| *text = Some(String::new()));
        let document = serde_json::to_string(&document).expect("texts and numbers are JSON");
        let (head, signature) = (made.head.as_str(), made.signature.as_str());
        let parts = bundle::Parts { document: &document, head, signature, proof };
        let file = parts.assemble(signer).map_err(uncertified)?;
        let Err(refusal) = verify_invoice(&file, None) else { return Ok(()) };
        let finding = charges_differ(id, &refusal, self.deep()?);
        if waivers(&*self.snapshot.books)?.contains_key(&finding.id) {
            return Ok(());
        }
        Err(Problem::KeptBack(Box::new(KeptBack { findings: vec![finding] })))
    }

    /// Draws up a customer's document, and proves it as a run does, but with a defect between the two.
    #[cfg(test)]
    pub(crate) fn prove_changed(
        ledger: &Ledger,
        catalog: Arc<Catalog>,
        request: RunRequest,
        id: &CustomerId,
        defect: impl FnOnce(&mut Issue),
    ) -> Result<(), Problem> {
        let gated = Self::open(ledger, catalog, Arc::new(request))?;
        let drafted = gated.reading().draft_for(&*gated.snapshot.books, id)?;
        let Drafted::Draft { mut issue, provenance, .. } = drafted else {
            panic!("nothing is due of {id}");
        };
        defect(&mut issue);
        gated.prove(id, &mut issue, &provenance)
    }

    fn certify(&self) -> Result<Made, String> {
        fn told(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        let (ledger, snapshot, actor) = (&self.ledger, &self.snapshot, &self.request.actor);
        let signer = ledger.signer().ok_or_else(|| told(CertifyError::NoKey))?;
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(signer.ensure(ledger, actor)).map_err(told)?;
        let reconciliation = &self.deep().map_err(told)?.reconciliation;
        let losses = losses(&*snapshot.books).map_err(told)?;
        let judging = Judging {
            now: snapshot.ledger_time(),
            span: Span { from: reconciliation.from, to: reconciliation.at },
            silent_after_millis: snapshot.silent_after_millis,
            losses: &losses,
            policies: &self.catalog.policies,
        };
        for _ in 0..TRIES_MAX {
            let cut = Cut {
                snapshot,
                reconciliation,
                before: last(&*ledger.books().map_err(told)?).map_err(told)?,
                state_of: &|record| judging.state_of(record),
            };
            let (made, certify) = make(&cut, signer).map_err(told)?;
            let change = Change {
                actor: actor.clone(),
                reason: None,
                date: None,
                request: None,
                what: What::Certify(Box::new(certify)),
            };
            match runtime.block_on(ledger.book(change)).map_err(told)? {
                Ok(_) => return Ok(made),
                // Another run has certified meanwhile.
                Err(Refused::Stale) => {}
                Err(refused) => return Err(told(refused)),
            }
        }
        Err(told(Problem::Overtaken))
    }
}
