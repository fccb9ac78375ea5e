//! A shared, replaceable `Arc`: read by many doors, replaced at a change of rules.

use std::sync::{Arc, PoisonError, RwLock};

#[derive(Debug)]
pub(super) struct ArcSlot<T>(Arc<RwLock<Option<Arc<T>>>>);

impl<T> Clone for ArcSlot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> ArcSlot<T> {
    pub(super) fn new(value: Option<Arc<T>>) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    pub(super) fn load(&self) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn store(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }
}
