//! A tax service over HTTP: what `billing.tax_service` names.
//!
//! ```text
//! POST URL   TaxQuestion (invoice/tax.rs) as JSON
//! 200        {"taxes": [{"name": .., "label": .., "percent": "19", "inclusive": BOOL, "net": .., "tax": .., "lines": [1, 2]}]}
//! ```
//! Amounts are decimal texts in the question's currency. Anything else than 200 with such an answer keeps the document
//! back; the next run asks again.
//!
//! **Owns** the request. **Does not own** whether the answer fits the document (`invoice/draft.rs`).
//!
//! Limits: an answer comes within [`ANSWER_MAX`] and has at most [`ANSWER_BYTES_MAX`] bytes.

use std::time::Duration;

use serde::Deserialize;

use crate::invoice::tax::{AskedTax, TaxQuestion, TaxService};
use crate::money::{Currency, Money, Percent};

const ANSWER_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The service at one address.
#[derive(Debug)]
pub struct HttpTaxService {
    url: String,
    agent: ureq::Agent,
}

#[derive(Debug, Deserialize)]
struct Answer {
    taxes: Vec<TaxAnswer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaxAnswer {
    name: String,
    label: String,
    percent: String,
    inclusive: bool,
    net: String,
    tax: String,
    lines: Vec<usize>,
}

impl HttpTaxService {
    #[must_use]
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX));
        Self { url: url.to_owned(), agent: config.build().into() }
    }
}

impl TaxService for HttpTaxService {
    fn ask(&self, question: &TaxQuestion<'_>) -> Result<Vec<AskedTax>, String> {
        let told = |error: &dyn std::fmt::Display| format!("{error} ({})", self.url);
        let body = serde_json::to_vec(question).map_err(|error| told(&error))?;
        let request = self.agent.post(&self.url).content_type("application/json");
        let mut answer = request.send(&body).map_err(|error| told(&error))?;
        let answer = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let answer = answer.map_err(|error| told(&error))?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| told(&error))?;
        let currency = Currency::parse(&question.currency).map_err(|error| told(&error))?;
        answer.taxes.into_iter().map(|tax| read(tax, currency)).collect()
    }
}

fn read(tax: TaxAnswer, currency: Currency) -> Result<AskedTax, String> {
    let money = |text: &str| Money::parse(text, currency).map_err(|error| error.to_string());
    let percent = Percent::parse(&tax.percent)
        .map_err(|error| format!("the percentage {:?} {error}", tax.percent))?;
    Ok(AskedTax {
        percent,
        net: money(&tax.net)?,
        tax: money(&tax.tax)?,
        name: tax.name,
        label: tax.label,
        inclusive: tax.inclusive,
        lines: tax.lines,
    })
}
