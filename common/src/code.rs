//! Evidence codes: what an agent counts, as numbers that are never reused.
//!
//! Evidence travels inside frozen batch bodies as (code, cumulative count), so a code's meaning never
//! changes and a retired code stays retired.

/// What a cumulative evidence count counts. Events, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum EvidenceCode {
    /// Durable events of the stream.
    Accepted = 1,
    /// Metrics that no `metered` pattern matches.
    NotMetered = 2,
    /// Datagrams that the kernel dropped before the agent could read them.
    KernelDrops = 3,
    /// Numbers missing in the counters of numbered sources.
    SourceGaps = 4,
    /// Openings that began without a clean end of the one before.
    UncleanStarts = 5,
    /// Events with an id that the journal already holds.
    Duplicates = 6,
    /// Metrics of the catalogue that `metered` excludes.
    ExcludedByMetered = 7,
    /// Dimensions dropped because the rules do not list them (counted per event and dimension).
    DroppedDimensions = 8,
    /// Events of dead letters that were replayed: counted as rejected once, and as accepted since.
    Replayed = 9,
    /// Events without an id, of a meter whose events are told apart by their ids in the whole ledger.
    WithoutId = 10,

    // Rejected, by reason: 100 and up.
    RejectedMalformed = 100,
    RejectedTruncated = 101,
    RejectedOversize = 102,
    RejectedNotUtf8 = 103,
    RejectedBadMeter = 104,
    RejectedNoCustomer = 105,
    RejectedBadCustomer = 106,
    RejectedBadTime = 107,
    RejectedTooOld = 108,
    RejectedInFuture = 109,
    RejectedBadQuantity = 110,
    RejectedNotFinite = 111,
    RejectedTooPrecise = 112,
    RejectedTooLarge = 113,
    RejectedNegative = 114,
    RejectedBadId = 115,
    RejectedBadDimension = 116,
    RejectedTooManyDimensions = 117,
    RejectedSampled = 118,
    RejectedServiceCheck = 119,
    RejectedDogstatsdEvent = 120,
    RejectedUnsupportedType = 121,
    RejectedBadUnique = 122,
    RejectedBadSource = 123,
    RejectedBadCloudEvent = 124,
    /// Refused by a door that cannot wait, because the journal is at its budget.
    RejectedJournalFull = 125,
    RejectedTooManyValues = 126,
}

impl EvidenceCode {
    /// Every code, ascending.
    pub const ALL: [Self; 37] = {
        use EvidenceCode::*;
        [
            Accepted,
            NotMetered,
            KernelDrops,
            SourceGaps,
            UncleanStarts,
            Duplicates,
            ExcludedByMetered,
            DroppedDimensions,
            Replayed,
            WithoutId,
            RejectedMalformed,
            RejectedTruncated,
            RejectedOversize,
            RejectedNotUtf8,
            RejectedBadMeter,
            RejectedNoCustomer,
            RejectedBadCustomer,
            RejectedBadTime,
            RejectedTooOld,
            RejectedInFuture,
            RejectedBadQuantity,
            RejectedNotFinite,
            RejectedTooPrecise,
            RejectedTooLarge,
            RejectedNegative,
            RejectedBadId,
            RejectedBadDimension,
            RejectedTooManyDimensions,
            RejectedSampled,
            RejectedServiceCheck,
            RejectedDogstatsdEvent,
            RejectedUnsupportedType,
            RejectedBadUnique,
            RejectedBadSource,
            RejectedBadCloudEvent,
            RejectedJournalFull,
            RejectedTooManyValues,
        ]
    };

    /// The code's number, as stored.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number; `None` for one that this version does not know.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// True for the codes that count rejected events.
    #[must_use]
    pub fn is_rejection(self) -> bool {
        self.number() >= 100
    }

    /// The code's name, as metric label, in JSON and in answers to clients.
    #[must_use]
    pub fn name(self) -> &'static str {
        use EvidenceCode::*;
        match self {
            Accepted => "accepted",
            NotMetered => "not_metered",
            KernelDrops => "kernel_drops",
            SourceGaps => "source_gaps",
            UncleanStarts => "unclean_starts",
            Duplicates => "duplicates",
            ExcludedByMetered => "excluded_by_metered",
            DroppedDimensions => "dropped_dimensions",
            Replayed => "replayed",
            WithoutId => "without_id",
            RejectedMalformed => "malformed",
            RejectedTruncated => "truncated",
            RejectedOversize => "oversize",
            RejectedNotUtf8 => "not_utf8",
            RejectedBadMeter => "bad_meter",
            RejectedNoCustomer => "no_customer",
            RejectedBadCustomer => "bad_customer",
            RejectedBadTime => "bad_time",
            RejectedTooOld => "too_old",
            RejectedInFuture => "in_future",
            RejectedBadQuantity => "bad_quantity",
            RejectedNotFinite => "not_finite",
            RejectedTooPrecise => "too_precise",
            RejectedTooLarge => "too_large",
            RejectedNegative => "negative",
            RejectedBadId => "bad_id",
            RejectedBadDimension => "bad_dimension",
            RejectedTooManyDimensions => "too_many_dimensions",
            RejectedSampled => "sampled",
            RejectedServiceCheck => "service_check",
            RejectedDogstatsdEvent => "dogstatsd_event",
            RejectedUnsupportedType => "unsupported_type",
            RejectedBadUnique => "bad_unique",
            RejectedBadSource => "bad_source",
            RejectedBadCloudEvent => "bad_cloudevent",
            RejectedJournalFull => "journal_full",
            RejectedTooManyValues => "too_many_values",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_come_back_from_their_numbers() {
        for pair in EvidenceCode::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number(), "{pair:?}");
        }
        for code in EvidenceCode::ALL {
            assert_eq!(EvidenceCode::from_number(code.number()), Some(code));
        }
        assert_eq!(EvidenceCode::from_number(9_999), None);
    }
}
