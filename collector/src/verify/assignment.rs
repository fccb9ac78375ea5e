//! Which usage a part's lines are made of: that each text is the line's, and that none is left out.
//!
//! **Owns** the assignment of texts. **Does not own** what the usage comes to (`usage`), or its price (`rater`).
//!
//! A price takes what none before it takes, by all prices of the part, shown or not: a correction shows only lines that
//! are different.

use std::collections::{BTreeSet, HashMap};

use super::bundle::{At, Bundle, DayContent, PartText};
use super::tariff::Price;
use super::usage::{self, Amount, Key, Text, TextKind, Texts};
use super::{Refusal, ensure};

const BUCKETS_PER_DAY: u32 = 96;

/// The usage of a proof, and what of it lines were made of so far.
#[derive(Debug)]
pub(super) struct Assignment<'b> {
    bundle: &'b Bundle,
    texts: &'b [Texts],
    used: BTreeSet<At>,
}

/// A part's prices in their order, each with its line in the part, if that is shown.
#[derive(Debug)]
pub(super) struct PricedLines<'p> {
    pub(super) prices: Vec<(&'p Price, Option<usize>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// Of the part's line of this index.
    Line(usize),
    /// Another plan charges it.
    Elsewhere,
}

impl<'b> Assignment<'b> {
    pub(super) fn new(bundle: &'b Bundle, texts: &'b [Texts]) -> Self {
        Self { bundle, texts, used: BTreeSet::new() }
    }

    /// How many texts lines are made of.
    pub(super) fn used(&self) -> usize {
        self.used.len()
    }

    /// Whether all of the part's usage is in the tree.
    pub(super) fn is_covered(&self, part: &PartText) -> bool {
        day_of(part.from) >= self.bundle.head.from_day
    }

    /// The usage of each of the part's lines: nothing of those without usage.
    pub(super) fn of_part(
        &mut self,
        part: &PartText,
        lines: &PricedLines<'_>,
        place: &str,
    ) -> Result<Vec<Amount>, Refusal> {
        let placed = self.placed(part, place)?;
        self.check_days(part, lines, place)?;
        let mut keys: HashMap<&Key, Placed> = HashMap::new();
        let mut by_line: Vec<HashMap<&Key, Vec<&Text>>> = vec![HashMap::new(); part.lines.len()];
        let by_meter = by_meter(lines);
        let mut visited = 0_usize;
        for (at, text) in self.texts_of(part) {
            let place = || format!("{place}: text {} of days[{}]", at.text, at.day);
            let found = placed.get(&at).copied();
            visited = visited.saturating_add(usize::from(found.is_some()));
            let line = match first_price(&by_meter, text) {
                Some((_, line)) => line,
                None if found.is_none() => continue,
                None => return Err(Refusal::new(place(), "no price of the part takes it")),
            };
            let found = match (found, line) {
                (Some(Placed::Line(found)), Some(line)) if found == line => Placed::Line(line),
                (Some(Placed::Elsewhere), _) => Placed::Elsewhere,
                (None, None) => continue,
                (None, Some(_)) => {
                    return Err(Refusal::new(
                        place(),
                        "a line's price takes it, and no line has it",
                    ));
                }
                (Some(Placed::Line(_)), _) => {
                    return Err(Refusal::new(place(), "another price of the part takes it first"));
                }
            };
            let same = keys.insert(&text.key, found).is_none_or(|before| before == found);
            ensure(same, place(), || "it is apart from other texts of its key".to_owned())?;
            if let Placed::Line(line) = found
                && let Some(keys) = by_line.get_mut(line)
            {
                keys.entry(&text.key).or_default().push(text);
            }
        }
        ensure(visited == placed.len(), place, || {
            "it names texts that are not of its time, or not in the file".to_owned()
        })?;
        by_line.iter().map(|keys| amount(keys, place)).collect()
    }

    /// Where the part says that texts are. No text is of two lines.
    fn placed(&mut self, part: &PartText, place: &str) -> Result<HashMap<At, Placed>, Refusal> {
        let mut placed = HashMap::new();
        for (line, texts) in part.rows.iter().enumerate() {
            for at in texts {
                placed.insert(*at, Placed::Line(line));
                ensure(self.used.insert(*at), place, || {
                    format!("text {} of days[{}] is of two lines", at.text, at.day)
                })?;
            }
        }
        for at in &part.elsewhere {
            ensure(placed.insert(*at, Placed::Elsewhere).is_none(), place, || {
                format!("text {} of days[{}] is of a line and elsewhere", at.text, at.day)
            })?;
        }
        Ok(placed)
    }

    /// All of a part with usage is shown.
    fn check_days(
        &self,
        part: &PartText,
        lines: &PricedLines<'_>,
        place: &str,
    ) -> Result<(), Refusal> {
        if lines.prices.iter().all(|(_, line)| line.is_none()) {
            return Ok(());
        }
        let days = day_of(part.from)..=day_of(part.to.saturating_sub(1));
        let hidden =
            self.bundle.days.iter().find(|day| {
                days.contains(&day.day) && matches!(day.content, DayContent::Digest(_))
            });
        ensure(hidden.is_none(), place, || {
            let day = hidden.map_or(0, |day| day.day);
            format!("the texts of day {day} are left out, and it is of its time")
        })
    }

    /// The given texts of the part's time.
    fn texts_of<'a>(&'a self, part: &'a PartText) -> impl Iterator<Item = (At, &'b Text)> + 'a {
        let (bundle, texts) = (self.bundle, self.texts);
        let days = day_of(part.from)..=day_of(part.to.saturating_sub(1));
        let begin = bundle.days.partition_point(|day| day.day < *days.start());
        let end = bundle.days.partition_point(|day| day.day <= *days.end());
        (begin..end).flat_map(move |day| {
            let texts = texts.get(day).and_then(Option::as_ref).into_iter().flatten();
            texts
                .enumerate()
                .map(move |(text, found)| (At { day, text }, found))
                .filter(|(_, text)| (part.from..part.to).contains(&text.key.bucket))
        })
    }
}

fn day_of(bucket: u32) -> u32 {
    bucket.checked_div(BUCKETS_PER_DAY).unwrap_or(0)
}

type ByMeter<'p> = HashMap<&'p str, Vec<(&'p Price, Option<usize>)>>;

fn by_meter<'p>(lines: &PricedLines<'p>) -> ByMeter<'p> {
    let mut found = ByMeter::new();
    for (price, line) in &lines.prices {
        found.entry(price.meter.as_str()).or_default().push((price, *line));
    }
    found
}

/// The price that takes a text, and its line.
fn first_price<'p>(by_meter: &ByMeter<'p>, text: &Text) -> Option<(&'p Price, Option<usize>)> {
    let billable = match text.kind {
        TextKind::Row { normal } => normal,
        TextKind::Correction { .. } => true,
    };
    let prices = by_meter.get(text.key.meter.as_str()).filter(|_| billable)?;
    prices.iter().find(|(price, _)| price.takes(&text.key.meter, &text.key.dimensions)).copied()
}

/// What a line's texts come to together.
fn amount(keys: &HashMap<&Key, Vec<&Text>>, place: &str) -> Result<Amount, Refusal> {
    let mut all = Amount::nothing();
    for (key, texts) in keys {
        let place = format!("{place}: {} in the bucket {}", key.meter, key.bucket);
        all.add(&usage::of_key(texts, &place)?, &place)?;
    }
    Ok(all)
}
