//! `invoice.json`: a document with its certificate and proof, in one signed file.
//!
//! **Owns** how the parts come together. **Does not own** them: all but the signature are as the books keep them.

use std::io;

use thiserror::Error;

use super::keys::Signer;
use super::{CertificateFile, row_key};
use crate::invoice::{CutShown, Printed};
use crate::ledger::books::rows;
use crate::ledger::store::{Books, StoreError};

/// Level of what is kept of a proof.
const LEVEL: i32 = 3;

/// Why there is no bundle.
#[derive(Debug, Error)]
pub enum BundleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A credit note of a person's, or issued before there were certificates.
    #[error("{number} names no certificate, so it has no proof")]
    NoProof { number: String },
    #[error("the collector has no key to sign with; its log says why")]
    NoKey,
}

/// A proof's text, as it is kept.
///
/// # Errors
/// If it cannot be compressed.
pub fn kept(text: &str) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(text.as_bytes(), LEVEL)
}

/// The file of one document.
///
/// # Errors
/// A document without a certificate, or rows that cannot be read.
pub fn bundle(
    books: &dyn Books,
    signer: Option<&Signer>,
    number: &str,
    document: &[u8],
) -> Result<Vec<u8>, BundleError> {
    let broken = |what: &str| StoreError::books(format!("document {number}: {what}"));
    let document = std::str::from_utf8(document).map_err(|_| broken("it is no text"))?;
    let printed: Printed =
        serde_json::from_str(document).map_err(|error| broken(&error.to_string()))?;
    let no_proof = || BundleError::NoProof { number: number.to_owned() };
    let Some(CutShown { certificate: Some(certified), .. }) = printed.cut else {
        return Err(no_proof());
    };
    let kept = books.get(&rows::key(rows::PROOFS, number.as_bytes()))?.ok_or_else(no_proof)?;
    let proof = zstd::stream::decode_all(kept.as_slice())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| broken("its proof cannot be read"))?;
    let certificate: Option<CertificateFile> = rows::get(books, &row_key(certified.number))?;
    let CertificateFile { head, signature, .. } =
        certificate.ok_or_else(|| broken("its certificate is not there"))?;
    let parts = Parts { document, head: &head, signature: &signature, proof: &proof };
    parts.assemble(signer.ok_or(BundleError::NoKey)?)
}

/// What a file is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub document: &'a str,
    pub head: &'a str,
    /// Of the head.
    pub signature: &'a str,
    /// As `proof.rs` makes it: an object.
    pub proof: &'a str,
}

impl Parts<'_> {
    /// The file, signed.
    ///
    /// # Errors
    /// Without a key, or with a proof that is no object.
    pub fn assemble(self, signer: &Signer) -> Result<Vec<u8>, BundleError> {
        let Self { document, head, signature, proof } = self;
        let key = signer.key().ok_or(BundleError::NoKey)?;
        let proof = proof.strip_prefix('{').and_then(|proof| proof.strip_suffix('}'));
        let proof = proof.ok_or_else(|| StoreError::books("a proof is no object".to_owned()))?;
        let [document, head] =
            [document, head].map(|text| serde_json::Value::from(text).to_string());
        let mut text = format!(
            "{{\"format\":\"tidemark invoice 1\",\"document\":{document},\"certificate\":{{\"head\":{head},\"signature\":\"{signature}\"}},{proof},\"key\":\"{key}\""
        );
        let own = signer.sign(&[b"tidemark/invoice/1", text.as_bytes()].concat());
        let own = own.ok_or(BundleError::NoKey)?;
        text.push_str(&format!(",\"signature\":\"{own}\"}}\n"));
        Ok(text.into_bytes())
    }
}
