//! Opening the journal at the agent's start, and setting aside one that cannot be used.

use std::path::Path;
use std::time::Duration;

use std::sync::Arc;
use tidemark_common::id::{OpeningId, RulesVersion, StreamId};
use tidemark_common::wire::{MeterRule, Rules};

use super::{RunError, clock, millis_i64};
use crate::config::{self, Config};
use crate::journal::{
    FreshIds, Journal, JournalOptions, OpenError, Recovered, Settled, set_aside, settle_conflict,
};

/// How long another process may hold the journal, as during a rolling restart.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Opens the journal, or begins a new one in place of one that is damaged or in conflict.
///
/// # Errors
/// A journal that another agent holds, a newer one, or a disk that fails.
pub(super) async fn open_journal(
    config: config::Journal,
) -> Result<(Journal, Recovered), RunError> {
    let opened = tokio::task::spawn_blocking(move || open_or_set_aside(&config)).await;
    opened.map_err(|_| RunError::PartEnded)?
}

fn open_or_set_aside(config: &config::Journal) -> Result<(Journal, Recovered), RunError> {
    let refused = match Journal::open(options(config), fresh_ids()?, clock(), LOCK_WAIT) {
        Ok(opened) => return Ok(opened),
        Err(refused) => refused,
    };
    match &refused {
        OpenError::Conflicted { .. } => settle(config, &refused)?,
        OpenError::Corrupt { .. } => {
            let aside = set_aside(&config.path, &format!("corrupt-{}", clock().0))?;
            say_set_aside(&refused, &aside);
        }
        OpenError::Held { .. }
        | OpenError::Newer { .. }
        | OpenError::Older { .. }
        | OpenError::NotAJournal { .. }
        | OpenError::Budget { .. }
        | OpenError::Io { .. }
        | OpenError::Storage { .. } => return Err(refused.into()),
    }
    Ok(Journal::open(options(config), fresh_ids()?, clock(), LOCK_WAIT)?)
}

/// Makes room for a new stream, which begins with what is known not to be posted.
fn settle(config: &config::Journal, refused: &OpenError) -> Result<(), RunError> {
    match settle_conflict(&options(config)) {
        Ok(Settled::Moved(moved)) => tracing::error!(
            reason = %refused,
            stream = %moved.to,
            events = moved.events,
            openings = moved.openings,
            kept_as = %moved.aside.display(),
            events_kept = moved.left,
            "a new stream begins with the events that are known not to be posted; the others stay in the file that \
             is set aside: keep it, and see what it holds with `tidemark-agent export --journal FILE`"
        ),
        Ok(Settled::SetAside(aside)) => say_set_aside(refused, &aside),
        // Another process is at it, or was.
        Ok(Settled::InOrder) | Err(OpenError::Held { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn say_set_aside(reason: &OpenError, aside: &Path) {
    tracing::error!(
        %reason,
        kept_as = %aside.display(),
        "the journal is set aside and a new stream begins; the collector lists the old one as unfinished: keep the \
         file, and see what it holds with `tidemark-agent export --journal FILE`"
    );
}

/// The limits of a journal at another place.
pub(crate) fn journal_options(config: &Config, path: &Path) -> JournalOptions {
    options(&config::Journal { path: path.to_owned(), ..config.journal.clone() })
}

fn options(config: &config::Journal) -> JournalOptions {
    JournalOptions {
        path: config.path.clone(),
        bytes_max: config.bytes_max,
        retain_acked_millis: millis_i64(config.retain_acked),
        retain_acked_bytes_max: config.retain_acked_bytes_max,
        ids_max: config.ids_max,
        ids_window_millis: millis_i64(config.ids_window),
        dead_letters_max: config.dead_letters_max,
        dead_letter_bytes_max: config.dead_letter_bytes_max,
        raw_events_bytes_max: config.raw_events_bytes_max,
    }
}

pub(super) fn fresh_ids() -> Result<FreshIds, RunError> {
    let (mut stream, mut opening) = ([0; 16], [0; 16]);
    getrandom::fill(&mut stream)?;
    getrandom::fill(&mut opening)?;
    Ok(FreshIds { stream: StreamId(stream), opening: OpeningId(opening) })
}

/// Rules from the agent's own file, for doors that need some before the first Welcome. Their version
/// is 0: what is accepted under them is projected by the collector's, later.
pub(super) fn seed_rules(config: &config::SeedRules) -> Option<Arc<Rules>> {
    if config.seed.is_empty() {
        return None;
    }
    let meters = config
        .seed
        .iter()
        .map(|seed| MeterRule {
            meter: seed.meter.clone(),
            dimensions: seed.dimensions.clone(),
            negative: false,
        })
        .collect();
    Some(Arc::new(Rules {
        version: RulesVersion(0),
        seal_interval_millis: 1_000,
        meters,
        cloud_events: vec![],
        deduplicated: vec![],
    }))
}
