//! The streams that retired, as a snapshot has them: one that is live in it is not shown.

use std::ops::ControlFlow;

use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use super::Snapshot;
use crate::ledger::retired::{RetiredStream, RetiredSums};
use crate::ledger::store::StoreError;

impl Snapshot {
    /// What all streams that retired come to.
    #[must_use]
    pub fn retired(&self) -> &RetiredSums {
        &self.retired_sums
    }

    /// Shows the streams that retired at or after `since`, ascending by when, until `visit` breaks. What is not shown
    /// was closed and whole before `since`, and nothing of it changed from then on.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn visit_retired(
        &self,
        since: Timestamp,
        mut visit: impl FnMut(RetiredStream) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        self.retired.visit_since(since, &mut |retired| self.show(retired, &mut visit))
    }

    /// Shows the streams that retired and have a greater id than `after`, ascending by id, until `visit` breaks.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn visit_retired_after(
        &self,
        after: Option<StreamId>,
        mut visit: impl FnMut(RetiredStream) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        self.retired.visit_after(after, &mut |retired| self.show(retired, &mut visit))
    }

    fn show(
        &self,
        retired: RetiredStream,
        visit: &mut impl FnMut(RetiredStream) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // It returns, or is about to have retired.
        if self.is_live(retired.record.stream) { ControlFlow::Continue(()) } else { visit(retired) }
    }

    /// A stream that retired.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn retired_stream(&self, stream: StreamId) -> Result<Option<RetiredStream>, StoreError> {
        if self.is_live(stream) { Ok(None) } else { self.retired.find(stream) }
    }

    /// Whether an agent of this name ever said hello.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn has_agent(&self, agent: &AgentName) -> Result<bool, StoreError> {
        let live = self
            .agents
            .get_or_init(|| self.records.iter().map(|record| record.agent.clone()).collect());
        Ok(live.contains(agent) || self.retired.has_agent(agent)?)
    }

    fn is_live(&self, stream: StreamId) -> bool {
        self.records.binary_search_by_key(&stream, |record| record.stream).is_ok()
    }
}
