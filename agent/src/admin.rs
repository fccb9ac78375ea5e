pub mod growth;
pub mod metrics;
