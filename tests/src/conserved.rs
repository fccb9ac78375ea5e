//! Conservation: what was accepted is posted, in transit or quarantined, to the event.
//!
//! Each figure is counted on its own by the product. Both ends export it; both are checked.

use anyhow::{Result, ensure};

use crate::stack::Stack;

/// Checks the agent's metrics, the collector's streams and the collector's totals.
///
/// # Errors
/// The figures that do not add up.
pub fn assert_conserved(stack: &Stack) -> Result<()> {
    let agent = stack.agent_metrics()?;
    let accepted = agent.count("tidemark_agent_accepted_events_total")?;
    let posted = agent.count("tidemark_agent_posted_events_total")?;
    let in_transit = agent.count("tidemark_agent_in_transit_events")?;
    ensure!(
        Some(accepted) == posted.checked_add(in_transit),
        "agent: accepted {accepted} is not posted {posted} + in transit {in_transit}"
    );
    for stream in stack.api().streams()?.streams {
        let parts = [stream.posted_events, stream.events_in_transit, stream.quarantined_events];
        ensure!(
            stream.accepted == parts.iter().sum::<u64>(),
            "stream {}: accepted {} is not posted + in transit + quarantined {parts:?}",
            stream.stream,
            stream.accepted
        );
    }
    let collector = stack.collector_metrics()?;
    let posted = collector.count("tidemark_collector_conservation_posted_events")?;
    let usage = collector.count("tidemark_collector_conservation_usage_events")?;
    ensure!(posted == usage, "collector: {posted} events posted, {usage} in the usage totals");
    Ok(())
}
