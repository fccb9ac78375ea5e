//! What the collector's catalogue asks of agents: which dimensions to keep, how to read CloudEvents.

use serde::{Deserialize, Serialize};

use crate::id::{MeterName, RulesVersion};

/// The rules that batches are made under, versioned by the collector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// 1 or more; 0 stands for "none known".
    pub version: RulesVersion,
    /// How often the open batch is sealed while the uplink has room.
    pub seal_interval_millis: u32,
    /// The catalogue's meters, ascending by name.
    pub meters: Vec<MeterRule>,
    /// How CloudEvents of a type become usage, ascending by type.
    pub cloud_events: Vec<CloudEventRule>,
    /// Meters whose events are told apart by their ids in the whole ledger, ascending. Not among the fields on the
    /// wire, where Welcome's `extras` hold it; the codec sees to that.
    #[serde(skip)]
    pub deduplicated: Vec<MeterName>,
}

/// One meter of the catalogue, as far as an agent needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterRule {
    pub meter: MeterName,
    /// The names of the dimensions that are kept, ascending. All others are dropped and counted.
    pub dimensions: Vec<String>,
    /// Whether quantities below zero are accepted.
    pub negative: bool,
}

/// How a CloudEvent of one `type` is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEventRule {
    pub event_type: String,
    /// What is metered of one event; one entry today, several later.
    pub meters: Vec<CloudEventMeter>,
}

/// One usage event drawn from a CloudEvent. Paths are dotted names from the event's root
/// (`data.tokens`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEventMeter {
    pub meter: MeterName,
    /// Absent: `data.value`, else `data.quantity`, else 1.
    pub quantity: Option<String>,
    pub unique: Option<String>,
    /// Absent names are read from `data.NAME`.
    pub dimensions: Vec<DimensionPath>,
}

/// Where a dimension's value stands in a CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimensionPath {
    pub name: String,
    pub path: String,
}

/// One CloudEvent is at most this many usage events.
pub const CLOUD_EVENT_METERS_MAX: usize = 64;

impl Rules {
    /// What keeps these from being rules that agents can work by; they look names up by their order.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.version == RulesVersion(0) {
            return Err("rules without a version");
        }
        if !self.meters.is_sorted_by(|a, b| a.meter < b.meter) {
            return Err("meters that do not ascend");
        }
        if !self.meters.iter().all(|rule| rule.dimensions.is_sorted_by(|a, b| a < b)) {
            return Err("dimensions that do not ascend");
        }
        if !self.deduplicated.is_sorted_by(|a, b| a < b) {
            return Err("deduplicated meters that do not ascend");
        }
        if !self.cloud_events.is_sorted_by(|a, b| a.event_type < b.event_type) {
            return Err("types of CloudEvents that do not ascend");
        }
        if self.cloud_events.iter().any(|rule| rule.meters.len() > CLOUD_EVENT_METERS_MAX) {
            return Err("more meters of one CloudEvent than are allowed");
        }
        Ok(())
    }

    /// The rule of `meter`; `None` if the catalogue does not know it.
    #[must_use]
    pub fn meter(&self, meter: &str) -> Option<&MeterRule> {
        let index = self.meters.binary_search_by(|rule| rule.meter.as_str().cmp(meter)).ok()?;
        self.meters.get(index)
    }

    /// Whether events of `meter` are told apart by their ids in the whole ledger.
    #[must_use]
    pub fn deduplicates(&self, meter: &str) -> bool {
        self.deduplicated.binary_search_by(|name| name.as_str().cmp(meter)).is_ok()
    }

    /// The rule for CloudEvents of `event_type`.
    #[must_use]
    pub fn cloud_event(&self, event_type: &str) -> Option<&CloudEventRule> {
        let index = self
            .cloud_events
            .binary_search_by(|rule| rule.event_type.as_str().cmp(event_type))
            .ok()?;
        self.cloud_events.get(index)
    }
}
