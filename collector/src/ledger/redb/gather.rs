//! Batches gathered into slices of bounded size, each folded into the totals in one transaction.

use std::sync::Arc;

use super::RedbOptions;
use crate::ledger::fold::FoldSlice;
use crate::ledger::tail::{Tail, TailBatch, TailSize};

/// What is gathered and not folded yet.
#[derive(Debug)]
pub(super) struct Gather {
    tail: Tail,
    lines_max: u64,
    bytes_max: u64,
}

impl Gather {
    pub(super) fn new(options: &RedbOptions) -> Self {
        Self {
            tail: Tail::default(),
            lines_max: options.rebuild_lines_max,
            bytes_max: options.rebuild_bytes_max,
        }
    }

    /// Adds a batch; gives a slice once it is due.
    pub(super) fn add(&mut self, batch: TailBatch) -> Option<FoldSlice> {
        self.tail = std::mem::take(&mut self.tail).appended(vec![Arc::new(batch)]);
        let TailSize { lines, bytes, .. } = self.tail.size();
        (lines >= self.lines_max || bytes >= self.bytes_max).then(|| self.slice())
    }

    /// All that is gathered.
    pub(super) fn slice(&mut self) -> FoldSlice {
        let tail = std::mem::take(&mut self.tail);
        FoldSlice::of(tail.iter().map(Arc::as_ref))
    }

    pub(super) fn into_tail(self) -> Tail {
        self.tail
    }
}
