//! `tidemark-agent top`: how one or many agents are, drawn anew every few seconds, the worst first.
//!
//! **Owns** what is asked, in which order agents stand, and how the picture is drawn. **Does not own** the figures
//! ([`Status`]) or what is wrong with them ([`trouble`]).
//!
//! On a terminal each picture takes the place of the one before; elsewhere they follow each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use tidemark_common::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::admin::client::{AdminClient, ClientError};
use crate::admin::dead_letter::rfc3339;
use crate::paint::Paint;
use crate::status::text::{age, grouped};
use crate::status::{Status, trouble};

/// An agent that has not answered within this is shown as one that does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The screen without its former content, and the cursor at its first place.
const CLEAR: &str = "\x1b[H\x1b[2J";
const TITLES: [&str; 10] = [
    "AGENT",
    "SESSION",
    "ACCEPTED/S",
    "POSTED/S",
    "IN TRANSIT",
    "OLDEST",
    "JOURNAL",
    "FULL IN",
    "REJECTED",
    "LOST",
];
/// Names stand to the left, figures to the right.
const NAMES: usize = 2;

/// What to look at, and how often.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// An agent's admin address; given several times, or with commas between, all of them are shown
    /// [default: http://127.0.0.1:8128].
    #[arg(long = "admin", value_name = "URL", value_delimiter = ',')]
    pub agents: Vec<String>,
    /// Seconds between two pictures.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub every: u64,
    /// End after so many pictures; without it, Ctrl-C ends it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Where the picture is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Whether it is drawn over; otherwise pictures follow each other.
    pub is_terminal: bool,
    pub paint: Paint,
    /// Columns and rows, where they are known.
    pub size: Option<(u16, u16)>,
}

/// One agent, as it answered last.
#[derive(Debug)]
struct Seen {
    name: String,
    answer: Result<Box<Status>, ClientError>,
    /// Accepted and posted in a second, since the answer before.
    rates: Option<(u64, u64)>,
}

/// Draws until it is told to end. `screen` is asked before each picture.
///
/// # Errors
/// If `out` cannot be written, or a client cannot be made.
pub async fn top(
    arguments: &TopArguments,
    default: &str,
    mut screen: impl FnMut() -> Screen,
    now: impl Fn() -> Timestamp,
    out: &mut impl Write,
) -> Result<(), TopError> {
    let named = |url: &String| (short(url), url.clone());
    let agents: BTreeMap<String, String> = match arguments.agents.as_slice() {
        [] => [named(&default.to_owned())].into(),
        given => given.iter().map(named).collect(),
    };
    let clients: Vec<(String, AdminClient)> = agents
        .into_iter()
        .map(|(name, url)| Ok((name, AdminClient::new(&url)?)))
        .collect::<Result<_, ClientError>>()?;
    let every = Duration::from_secs(arguments.every);
    let mut before: BTreeMap<String, (Instant, u64, u64)> = BTreeMap::new();
    let mut drawn = 0_u64;
    loop {
        let begun = Instant::now();
        let seen = ask(&clients, &mut before).await;
        let place = screen();
        let picture = draw(&seen, now(), every, place);
        let clear = if place.is_terminal { CLEAR } else { "" };
        out.write_all(format!("{clear}{picture}").as_bytes())?;
        if !place.is_terminal {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        drawn = drawn.saturating_add(1);
        if arguments.count.is_some_and(|count| drawn >= count) {
            return Ok(());
        }
        sleep(every.saturating_sub(begun.elapsed())).await;
    }
}

/// Why nothing is drawn any more.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("failed to write: {0}")]
    Out(#[from] io::Error),
}

/// `10.0.0.7:8128` of `http://10.0.0.7:8128/`.
fn short(url: &str) -> String {
    let rest = url.trim_end_matches('/');
    rest.strip_prefix("http://").unwrap_or(rest).to_owned()
}

/// All at once: one that does not answer holds nobody up.
async fn ask(
    clients: &[(String, AdminClient)],
    before: &mut BTreeMap<String, (Instant, u64, u64)>,
) -> Vec<Seen> {
    let mut asking = JoinSet::new();
    for (name, client) in clients {
        let (name, client) = (name.clone(), client.clone());
        asking.spawn(async move {
            let answer = timeout(ANSWER_MAX, client.status()).await;
            let late = || ClientError::Unreachable {
                url: name.clone(),
                reason: format!("no answer within {} s", ANSWER_MAX.as_secs()),
            };
            (answer.unwrap_or_else(|_| Err(late())), name, Instant::now())
        });
    }
    let mut all = Vec::new();
    while let Some(answered) = asking.join_next().await {
        let Ok((answer, name, at)) = answered else { continue };
        let rates = answer.as_ref().ok().and_then(|status| {
            let events = (status.events.accepted, status.events.posted);
            let (former, accepted, posted) =
                before.insert(name.clone(), (at, events.0, events.1))?;
            let millis = u64::try_from(at.saturating_duration_since(former).as_millis()).ok()?;
            let rate = |now: u64, then: u64| {
                now.saturating_sub(then).saturating_mul(1_000).checked_div(millis)
            };
            Some((rate(events.0, accepted)?, rate(events.1, posted)?))
        });
        all.push(Seen { name, answer: answer.map(Box::new), rates });
    }
    all
}

fn draw(seen: &[Seen], now: Timestamp, every: Duration, screen: Screen) -> String {
    let Screen { paint, size, .. } = screen;
    let mut agents: Vec<(&Seen, Option<String>)> =
        seen.iter().map(|agent| (agent, wrong(agent))).collect();
    agents.sort_by_key(|(agent, wrong)| {
        let oldest =
            agent.answer.as_ref().ok().and_then(|it| it.backlog.oldest_unposted_age_millis);
        (agent.answer.is_ok(), wrong.is_none(), Reverse(oldest.unwrap_or(0)), agent.name.clone())
    });
    let unwell = agents.iter().filter(|(_, wrong)| wrong.is_some()).count();
    let (columns, lines_max) = size.map_or((usize::MAX, usize::MAX), |(columns, rows)| {
        (usize::from(columns), usize::from(rows).saturating_sub(1))
    });
    let head = match unwell {
        0 => "all well".to_owned(),
        _ => format!("{unwell} not well"),
    };
    let head =
        format!("{head}; agents: {}, every {} s, {}", agents.len(), every.as_secs(), rfc3339(now));
    let head = cut(&head, columns);
    let head = if unwell == 0 { paint.good(&head) } else { paint.bad(&head) };
    let mut lines = vec![head, String::new()];
    let cells: Vec<[String; 10]> = agents.iter().map(|(agent, _)| cells(agent)).collect();
    let mut widths = TITLES.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    lines.push(paint.faint(&cut(&aligned(TITLES.map(str::to_owned), widths), columns)));
    for ((_, wrong), row) in agents.iter().zip(cells) {
        let line = cut(&aligned(row, widths), columns);
        lines.push(if wrong.is_some() { paint.bad(&line) } else { line });
        lines.extend(wrong.iter().map(|text| cut(&format!("  {text}"), columns)));
    }
    if lines.len() > lines_max && lines_max > 0 {
        let hidden = lines.len().saturating_sub(lines_max).saturating_add(1);
        lines.truncate(lines_max.saturating_sub(1));
        lines.push(paint.faint(&format!("{hidden} more lines do not fit")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The gravest of what is wrong, in one line.
fn wrong(agent: &Seen) -> Option<String> {
    match &agent.answer {
        Ok(status) => trouble::find(status).into_iter().next().map(|first| first.what),
        Err(error) => Some(error.to_string()),
    }
}

fn cells(agent: &Seen) -> [String; 10] {
    let none = || "-".to_owned();
    let Ok(status) = &agent.answer else {
        let name = agent.name.clone();
        let silent = "no answer".to_owned();
        return [name, silent, none(), none(), none(), none(), none(), none(), none(), none()];
    };
    let rate =
        |of: fn(&(u64, u64)) -> u64| agent.rates.as_ref().map_or_else(none, |it| grouped(of(it)));
    let (journal, recent) = (&status.journal, &status.recent);
    let share = journal.live_bytes.saturating_mul(100).checked_div(journal.bytes_max);
    let rejected = recent.rejected.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let oldest =
        status.backlog.oldest_unposted_age_millis.filter(|_| status.events.in_transit() > 0);
    [
        agent.name.clone(),
        status.session.state.name().to_owned(),
        rate(|(accepted, _)| *accepted),
        rate(|(_, posted)| *posted),
        grouped(status.events.in_transit()),
        oldest.map_or_else(none, age),
        share.map_or_else(none, |share| format!("{share} %")),
        if journal.full {
            "FULL".to_owned()
        } else {
            journal.time_to_full_millis.map_or_else(none, age)
        },
        grouped(rejected),
        grouped(recent.kernel_drops.saturating_add(recent.source_gaps)),
    ]
}

fn aligned(row: [String; 10], widths: [usize; 10]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
        let (before, after) = if index < NAMES { ("", gap.as_str()) } else { (gap.as_str(), "") };
        let between = if index == 0 { "" } else { "  " };
        line.push_str(&[between, before, cell, after].concat());
    }
    line.trim_end().to_owned()
}

fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SessionState;

    fn seen(name: &str, change: impl FnOnce(&mut Status)) -> Seen {
        let mut status = Status::default();
        status.session.state = SessionState::Connected;
        status.journal.bytes_max = 1 << 30;
        change(&mut status);
        Seen { name: name.to_owned(), answer: Ok(Box::new(status)), rates: Some((1_200, 1_100)) }
    }

    fn silent(name: &str) -> Seen {
        let error = ClientError::NobodyThere { base: format!("http://{name}") };
        Seen { name: name.to_owned(), answer: Err(error), rates: None }
    }

    fn picture(agents: &[Seen], size: Option<(u16, u16)>) -> Vec<String> {
        let screen = Screen { is_terminal: false, paint: Paint::Plain, size };
        let drawn = draw(agents, Timestamp(0), Duration::from_secs(2), screen);
        drawn.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_worst_is_first() {
        let waits = |millis: u64| {
            move |status: &mut Status| {
                status.events.accepted = 5_000;
                status.events.posted = 4_000;
                status.events.in_unposted_batches = 1_000;
                status.backlog.oldest_unposted_age_millis = Some(millis);
            }
        };
        let lines = picture(
            &[
                seen("d:1", |_| ()),
                seen("c:1", waits(1_000)),
                seen("b:1", waits(300_000)),
                silent("a:1"),
            ],
            None,
        );
        let first = |line: &String| line.split_whitespace().next().unwrap_or_default().to_owned();
        assert!(lines[0].starts_with("2 not well; agents: 4, every 2 s, 1970-"), "{}", lines[0]);
        assert!(lines[2].starts_with("AGENT  SESSION"), "{}", lines[2]);
        let names: Vec<String> =
            lines[3..].iter().filter(|line| !line.starts_with(' ')).map(first).collect();
        assert_eq!(names, ["a:1", "b:1", "c:1", "d:1"]);
        assert!(lines[4].contains("nothing answers at http://a:1"), "{}", lines[4]);
        assert!(
            lines[5].contains("1,200") && lines[5].contains("1,000") && lines[5].contains("5m"),
            "{}",
            lines[5]
        );
        // Columns stand below each other.
        let end = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
        assert_eq!(end(&lines[2], "IN TRANSIT"), end(&lines[5], "  1,000"));
    }

    #[test]
    fn a_small_screen_is_not_run_over() {
        let agents: Vec<Seen> =
            (0..50).map(|index| silent(&format!("agent-{index:02}:8128"))).collect();
        let lines = picture(&agents, Some((40, 12)));
        assert_eq!(lines.len(), 11);
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
        assert_eq!(lines[10], "93 more lines do not fit");
    }
}
