//! OpenMetrics text, as far as whole numbers go: what the two programs count.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// All samples of one scrape by name with labels, as written: `name{label="value"}`.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, String>);

impl Metrics {
    #[must_use]
    pub fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A sample that must be there.
    ///
    /// # Errors
    /// When it is not, or is no whole number.
    pub fn count(&self, name: &str) -> Result<u64> {
        let value = self.0.get(name).with_context(|| format!("/metrics has no {name}"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// A sample that counts nothing while it is not there.
    #[must_use]
    pub fn count_or_zero(&self, name: &str) -> u64 {
        self.count(name).unwrap_or(0)
    }

    /// Rejected events of the agent by reason, where there are some.
    #[must_use]
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let prefix = "tidemark_agent_rejected_events_total{reason=\"";
        let reasons = self.0.iter().filter_map(|(name, value)| {
            let reason = name.strip_prefix(prefix)?.strip_suffix("\"}")?;
            let count = value.parse().ok().filter(|count| *count > 0)?;
            Some((reason.to_owned(), count))
        });
        reasons.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read() {
        let metrics = Metrics::read(
            "# TYPE a counter\na_total 7\ntidemark_agent_rejected_events_total{reason=\"sampled\"} 3\n# EOF\n",
        );
        assert_eq!(metrics.count("a_total").unwrap(), 7);
        assert_eq!(metrics.count_or_zero("b"), 0);
        assert_eq!(metrics.rejected(), BTreeMap::from([("sampled".to_owned(), 3)]));
        assert!(metrics.count("b").is_err());
    }
}
