//! `tidemark-collector verify`: reads files, prints what they prove.
//!
//! **Owns** files, their largest size, and which of three ends it comes to. **Does not own** any check.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{FILE_BYTES_MAX, Keys, Refusal, verify_certificate, verify_invoice};
use crate::archive::ArchiveError;
use crate::archive::read::Archive;

/// Failed to read: that says nothing of what the file proves.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{} is a certificate: say with which archive it is verified (--batches DIR)", path.display())]
    IsCertificate { path: PathBuf },
    #[error("{} is no certificate: give what GET /v1/certificates/{{number}} answers; an invoice's proof is verified without --batches", path.display())]
    NoCertificate { path: PathBuf },
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to read {}: it has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("failed to read the archive: {0}; name the folder that holds `manifests`")]
    Archive(#[from] ArchiveError),
    #[error("failed to read the keys in {}: {refusal}; get them from /.well-known/tidemark-keys", path.display())]
    Keys { path: PathBuf, refusal: Refusal },
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// A certificate's file begins so.
const CERTIFICATE_BEGIN: &[u8] = b"{\"head\":";

/// What was verified: accepted or refused.
#[derive(Debug)]
pub struct Verdict {
    pub accepted: bool,
    /// What is printed.
    pub told: String,
}

/// Verifies an invoice's proof.
///
/// # Errors
/// Files that cannot be read.
pub fn invoice(path: &Path, keys: Option<&Path>, form: Form) -> Result<Verdict, CommandError> {
    let keys = keys.map(read_keys).transpose()?;
    let bytes = read(path)?;
    if bytes.starts_with(CERTIFICATE_BEGIN) {
        return Err(CommandError::IsCertificate { path: path.to_owned() });
    }
    let told = verify_invoice(&bytes, keys.as_ref()).map(|report| match form {
        Form::Text => report.told(),
        Form::Json => report.json(),
    });
    Ok(verdict(told, path, form))
}

/// A certificate, and what it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Audited<'p> {
    pub certificate: &'p Path,
    /// The archive's folder.
    pub batches: &'p Path,
    /// What GET /v1/certificates/{number}/streams answered.
    pub streams: Option<&'p Path>,
}

/// Verifies a certificate with an archive.
///
/// # Errors
/// Files that cannot be read.
pub fn certificate(
    audited: Audited<'_>,
    keys: Option<&Path>,
    form: Form,
) -> Result<Verdict, CommandError> {
    let keys = keys.map(read_keys).transpose()?;
    let bytes = read(audited.certificate)?;
    if !bytes.starts_with(CERTIFICATE_BEGIN) {
        return Err(CommandError::NoCertificate { path: audited.certificate.to_owned() });
    }
    let streams = audited.streams.map(read).transpose()?;
    let archive = Archive::in_folder(audited.batches)?;
    let report = verify_certificate(&bytes, &archive, streams.as_deref(), keys.as_ref());
    let told = report.map(|report| match form {
        Form::Text => report.told(),
        Form::Json => report.json(),
    });
    Ok(verdict(told, audited.certificate, form))
}

fn verdict(told: Result<String, Refusal>, path: &Path, form: Form) -> Verdict {
    match told {
        Ok(told) => Verdict { accepted: true, told },
        Err(refusal) => {
            let told = match form {
                Form::Text => format!("REFUSED      {}: {refusal}\n", path.display()),
                Form::Json => refused_json(&refusal),
            };
            Verdict { accepted: false, told }
        }
    }
}

fn refused_json(refusal: &Refusal) -> String {
    let Refusal { place, what } = refusal;
    format!("{}\n", serde_json::json!({"verified": false, "place": place, "what": what}))
}

fn read_keys(path: &Path) -> Result<Keys, CommandError> {
    let refused = |refusal| CommandError::Keys { path: path.to_owned(), refusal };
    Keys::read(&read(path)?).map_err(refused)
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    let failed = |source| CommandError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(CommandError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}
