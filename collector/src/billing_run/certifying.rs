//! A run's certificate: made of its one cut, and booked, before the first document that names it.
//!
//! **Owns** when that is, and that it is once. **Does not own** what stands in a certificate or a proof (`certificate`).
//!
//! Reads block.

use tidemark_common::id::CustomerId;

use super::Problem;
use super::gated::Gated;
use crate::certificate::make::{CertifyError, Cut, Made, make};
use crate::certificate::proof::Provenance;
use crate::certificate::{bundle, last};
use crate::ledger::books::{Change, Issue, Refused, What};
use crate::reconcile::{Judging, Span, losses};

/// So often another run may certify just before this one does.
const TRIES_MAX: u32 = 5;

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
        let kept = bundle::kept(&proof).map_err(|error| Problem::Certify(error.to_string()))?;
        issue.proof = Some(kept);
        Ok(())
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
