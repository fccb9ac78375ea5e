//! The lines of a document, each against the text of its plan and its usage.
//!
//! **Owns** which line is which fee, price, discount or commitment, and that each is there where it must be.
//! **Does not own** amounts (`rater`), usage (`assignment`), or sums (`sums`).

use std::collections::BTreeMap;

use num_bigint::BigInt;

use super::assignment::{Assignment, PricedLines};
use super::bundle::{Bundle, PartText};
use super::document::{Document, Line, Section, SectionKind, line_place, section_place};
use super::json::Value;
use super::lines::{Item, check_rated, check_tax, items, rated_amount, stated, term};
use super::rater::{MeterShown, Rated, Span, Terms};
use super::tariff::{Plan, Price, Subscription};
use super::usage::{Amount, Texts};
use super::{Refusal, ensure, exact, instant};

/// What was checked of the lines, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) rated_lines: u64,
    pub(super) usage_lines: u64,
    pub(super) texts: usize,
    pub(super) elsewhere: usize,
    /// For people: what other documents or nothing proves.
    pub(super) unproved: Vec<String>,
}

struct Checker<'b> {
    bundle: &'b Bundle,
    document: &'b Document,
    plans: Vec<Plan>,
    subscriptions: Vec<Subscription>,
    assignment: Assignment<'b>,
    /// For each section, which of its lines are of a part.
    taken: Vec<Vec<bool>>,
    /// Of each meter.
    aggregations: BTreeMap<String, String>,
    checked: Checked,
}

/// Checks every line.
pub(super) fn check(
    bundle: &Bundle,
    document: &Document,
    texts: &[Texts],
) -> Result<Checked, Refusal> {
    let numbered = |kind: &str, index: usize| format!("{kind}[{index}]");
    let plans = bundle.plans.iter().enumerate();
    let plans = plans.map(|(index, text)| Plan::read(text, &numbered("plans", index)));
    let subscriptions = bundle.subscriptions.iter().enumerate();
    let subscriptions = subscriptions
        .map(|(index, text)| Subscription::read(text, &numbered("subscriptions", index)));
    let mut checker = Checker {
        bundle,
        document,
        plans: plans.collect::<Result<_, _>>()?,
        subscriptions: subscriptions.collect::<Result<_, _>>()?,
        assignment: Assignment::new(bundle, texts),
        taken: document.sections.iter().map(|of| vec![false; of.lines.len()]).collect(),
        aggregations: BTreeMap::new(),
        checked: Checked::default(),
    };
    checker.run()
}

impl<'b> Checker<'b> {
    fn run(&mut self) -> Result<Checked, Refusal> {
        for (index, section) in self.document.sections.iter().enumerate() {
            check_dates(section, &self.document.period_end, &section_place(index))?;
        }
        let plans = std::mem::take(&mut self.plans);
        let subscriptions = std::mem::take(&mut self.subscriptions);
        for (index, part) in self.bundle.parts.iter().enumerate() {
            let place = format!("parts[{index}]");
            let terms = self.terms(part, &plans, &subscriptions, &place)?;
            self.part(part, &terms, &place)?;
        }
        self.check_tiling(&plans, &subscriptions)?;
        self.check_rest()?;
        let mut checked = std::mem::take(&mut self.checked);
        checked.texts = self.assignment.used();
        Ok(checked)
    }

    /// What holds in a part, by the texts that it names.
    fn terms<'t>(
        &self,
        part: &PartText,
        plans: &'t [Plan],
        subscriptions: &'t [Subscription],
        place: &str,
    ) -> Result<Terms<'t>, Refusal>
    where
        'b: 't,
    {
        let document: &'b Document = self.document;
        let missing = |what: &str| Refusal::new(place, format!("there is no such {what}"));
        let section = self.document.sections.get(part.section);
        let section = section.ok_or_else(|| missing("section"))?;
        let plan = plans.get(part.plan).ok_or_else(|| missing("plan"))?;
        let subscription = subscriptions.get(part.subscription);
        let subscription = subscription.ok_or_else(|| missing("subscription"))?;
        let (start, end) = dates(section, place)?;
        let span = Span { start, from: part.from, to: part.to, end };
        let is_trial = subscription.trial_end.is_some_and(|end| part.to <= end);
        let holds = [
            (plan.name == section.plan, "its plan is not its section's"),
            (plan.currency == document.currency, "its plan is in another currency"),
            (
                plan.rounding.or(self.bundle.tax_rounding).is_none_or(|own| own == part.rounding),
                "its plan, or else the seller (`tax_rounding`), rounds otherwise",
            ),
            (subscription.plan == section.plan, "its subscription is to another plan"),
            (
                subscription.customer == self.bundle.customer,
                "its subscription is another customer's",
            ),
            (
                is_length(&plan.interval, span.length()),
                "its section's period has not the length of the plan's interval",
            ),
            (part.trial == is_trial, "by its subscription's `trial_end` it is a trial, or none"),
        ];
        for (holds, what) in holds.into_iter().chain(in_time(part, span, plan, subscription)) {
            ensure(holds, place, || what.to_owned())?;
        }
        // Another version that is given takes effect later than this one, and within the part.
        let is_cut = plans
            .iter()
            .filter(|other| other.name == plan.name)
            .any(|other| other.effective.is_some_and(|at| part.from < at && at < part.to));
        ensure(!is_cut, place, || "another version of its plan takes effect within it".into())?;
        Ok(Terms {
            plan,
            subscription,
            span,
            trial: part.trial,
            rounding: part.rounding,
            currency: &document.currency,
            places: document.places,
        })
    }

    fn part(&mut self, part: &PartText, terms: &Terms<'_>, place: &str) -> Result<(), Refusal> {
        let document = self.document;
        let Some(section) = document.sections.get(part.section) else { return Ok(()) };
        let items = items(terms, section.kind);
        self.take_lines(part, section, place)?;
        let mut found: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
        let mut next = 0_usize;
        for (index, line) in part.lines.iter().enumerate() {
            let place = line_place(part.section, *line);
            let Some(line) = section.lines.get(*line) else { continue };
            let rest = items.iter().enumerate().skip(next);
            let item = rest.map(|(item, of)| (item, of.is_of(line))).find(|(_, is_of)| *is_of);
            let (item, _) = item.ok_or_else(|| {
                Refusal::new(
                    &place,
                    "the texts of plan and subscription have no such line, or not here",
                )
            })?;
            // A discount may stand in several shares.
            let is_discount = matches!(items.get(item), Some(Item::Discount(_)));
            next = if is_discount { item } else { item.saturating_add(1) };
            if let Some(found) = found.get_mut(item) {
                found.push(index);
            }
        }
        let is_price = |item: &Item<'_>| matches!(item, Item::Price(_));
        let missing = items.iter().zip(&found).find(|(item, lines)| {
            lines.is_empty()
                && section.kind == SectionKind::Period
                && !matches!(item, Item::Term(_))
        });
        ensure(missing.is_none(), place, || {
            let what = missing.map(|(item, _)| item.described()).unwrap_or_default();
            format!("there is no line of {what:?}")
        })?;
        let prices = items.iter().zip(&found).filter_map(|(item, lines)| match item {
            Item::Price(price) => Some((*price, lines.first().copied())),
            Item::Fee(_) | Item::Discount(_) | Item::Commitment(_) | Item::Term(_) => None,
        });
        let lines = PricedLines { prices: prices.collect() };
        let amounts = self.assignment.of_part(part, &lines, place)?;
        let elsewhere = part.elsewhere.len();
        self.checked.elsewhere = self.checked.elsewhere.saturating_add(elsewhere);
        let has_usage =
            items.iter().zip(&found).any(|(of, lines)| is_price(of) && !lines.is_empty());
        let covered = self.assignment.is_covered(part) || !has_usage;
        if !covered {
            self.unproved(place, "part of its usage is before the usage tree's first day");
        }
        self.amounts(part, terms, &items.iter().zip(found).collect::<Vec<_>>(), &amounts, covered)
    }

    /// Each item's amount, in their order: a discount is of those before it.
    fn amounts(
        &mut self,
        part: &PartText,
        terms: &Terms<'_>,
        items: &[(&Item<'_>, Vec<usize>)],
        amounts: &[Amount],
        covered: bool,
    ) -> Result<(), Refusal> {
        // Of what is not shown the sum is not known.
        let mut sum = Some(BigInt::ZERO);
        for (item, lines) in items {
            let Some(first) = lines.first() else {
                sum = match (item, sum) {
                    (Item::Discount(percent), Some(sum)) => {
                        Some(exact::add(&terms.discount(percent, &sum).amount, &sum))
                    }
                    (Item::Commitment(_) | Item::Term(_), sum) => sum,
                    (Item::Fee(_) | Item::Price(_) | Item::Discount(_), _) => None,
                };
                continue;
            };
            let number = part.lines.get(*first).copied().unwrap_or_default();
            let place = line_place(part.section, number);
            let Some(line) = self.line(part, *first) else { continue };
            let rated = match item {
                Item::Fee(fee) => terms.fee(fee),
                Item::Price(price) => {
                    self.checked.usage_lines = self.checked.usage_lines.saturating_add(1);
                    let meter = self.meter(line, price, &place)?;
                    let used = match amounts.get(*first) {
                        Some(amount) if covered => {
                            amount.used(&meter.aggregation.told(), &place)?
                        }
                        Some(_) | None => stated(line, &place)?,
                    };
                    terms.usage(price, &used, &meter)
                }
                Item::Discount(percent) => {
                    // Its amount stands in a share that is all of it, if in any.
                    let all = lines.iter().filter_map(|index| self.line(part, *index));
                    let line = all.clone().find(|line| line.rated.is_some()).unwrap_or(line);
                    let rated = sum.as_ref().map(|sum| terms.discount(percent, sum));
                    self.known(rated, line, &place, || terms.discount(percent, &BigInt::ZERO))?
                }
                Item::Commitment(commitment) => {
                    let rated = sum.as_ref().map(|sum| terms.commitment(commitment, sum));
                    self.known(rated, line, &place, || terms.commitment(commitment, &BigInt::ZERO))?
                }
                Item::Term(commitment) => {
                    self.unproved(
                        &place,
                        "what of the term is due and charged, other documents prove",
                    );
                    let (due, charged) = term(line, self.document.places, &place)?;
                    terms.term(commitment, &due, &charged)
                }
            };
            sum = sum.map(|sum| exact::add(&sum, &rated.amount));
            self.check_lines(part, terms, item, lines, &rated)?;
        }
        Ok(())
    }

    /// The amount as it stands, where that of other lines is not known.
    fn known(
        &mut self,
        rated: Option<Rated>,
        line: &Line,
        place: &str,
        otherwise: impl Fn() -> Rated,
    ) -> Result<Rated, Refusal> {
        if let Some(rated) = rated {
            return Ok(rated);
        }
        self.unproved(place, "it is of lines that this document does not show");
        let amount = rated_amount(self.document.kind, line);
        let text = exact::with_places(&amount, self.document.places);
        let mut rated = otherwise();
        for (key, value) in &mut rated.shown {
            if key == "amount" {
                *value = Value::Text(text.clone());
            }
        }
        Ok(Rated { amount, ..rated })
    }

    /// The lines of one item: one that is rated, or the shares of a discount.
    fn check_lines(
        &mut self,
        part: &PartText,
        terms: &Terms<'_>,
        item: &Item<'_>,
        lines: &[usize],
        rated: &Rated,
    ) -> Result<(), Refusal> {
        let taxes = self.document.taxes.iter().filter(|tax| tax.category == "asked");
        let asked: Vec<&str> = taxes.map(|tax| tax.name.as_str()).collect();
        let (mut sum, mut shares) = (BigInt::ZERO, 0_usize);
        let mut place = String::new();
        for index in lines {
            let number = part.lines.get(*index).copied().unwrap_or_default();
            place = line_place(part.section, number);
            let Some(line) = self.line(part, *index) else { continue };
            ensure(line.description == item.described(), &place, || {
                format!("it is described as {:?}, and is {:?}", line.description, item.described())
            })?;
            check_tax(line, item, &asked, &place)?;
            if line.rated.is_none() {
                shares = shares.saturating_add(1);
            }
            if let Some(shown) = &line.rated {
                let own = rated_amount(self.document.kind, line);
                self.same(&own, &rated.amount, &place)?;
                self.checked.rated_lines = self.checked.rated_lines.saturating_add(1);
                check_rated(shown, rated, terms, item, &place)?;
            }
            sum = exact::add(&sum, &rated_amount(self.document.kind, line));
        }
        // A correction shows only the shares that are different.
        let kind = self.document.sections.get(part.section).map(|section| section.kind);
        if kind == Some(SectionKind::Period) || shares == 0 {
            return self.same(&sum, &rated.amount, &place);
        }
        self.unproved(&place, "its other shares are not on this document");
        Ok(())
    }

    fn same(&self, shown: &BigInt, due: &BigInt, place: &str) -> Result<(), Refusal> {
        ensure(shown == due, place, || {
            let [shown, due] =
                [shown, due].map(|amount| exact::with_places(amount, self.document.places));
            format!(
                "before what was invoiced before the amount is {shown}, and by the texts of plan and subscription and the usage it is {due}"
            )
        })
    }

    fn line(&self, part: &PartText, index: usize) -> Option<&'b Line> {
        let document: &'b Document = self.document;
        let number = part.lines.get(index)?;
        document.sections.get(part.section)?.lines.get(*number)
    }

    /// Notes that the lines are this part's. Of a period they stand one behind the other, part by part.
    fn take_lines(
        &mut self,
        part: &PartText,
        section: &Section,
        place: &str,
    ) -> Result<(), Refusal> {
        let taken = self.taken.get_mut(part.section);
        let taken = taken.ok_or_else(|| Refusal::new(place, "there is no such section"))?;
        ensure(!part.lines.is_empty(), place, || "it has no lines".to_owned())?;
        let mut before: Option<usize> = None;
        for number in &part.lines {
            let ascends = before.is_none_or(|before| before < *number);
            let is_next =
                number.checked_sub(1).is_none_or(|before| taken.get(before) == Some(&true));
            let is_free = taken.get(*number) == Some(&false);
            ensure(ascends && is_free, place, || {
                format!("line {number} of its section is not there, twice, or out of order")
            })?;
            ensure(is_next || section.kind != SectionKind::Period, place, || {
                format!("line {number} of its section does not follow the line before it")
            })?;
            if let Some(taken) = taken.get_mut(*number) {
                *taken = true;
            }
            before = Some(*number);
        }
        Ok(())
    }

    /// What the document says of a meter that no plan says: the same on each line.
    fn meter(&mut self, line: &Line, price: &Price, place: &str) -> Result<MeterShown, Refusal> {
        let key = |key: &str| {
            let rated = line.rated.iter().flatten();
            rated.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
        };
        let missing = || Refusal::new(place, "`rated` has no `aggregation`");
        let aggregation = key("aggregation").ok_or_else(missing)?;
        let (meter, name) = (price.meter.clone(), aggregation.text(place)?.to_owned());
        let before = self.aggregations.entry(meter).or_insert_with(|| name.clone());
        ensure(*before == name, place, || {
            format!("the meter's aggregation is {name}, and on another line {before}")
        })?;
        let unit = key("unit");
        unit.as_ref().map_or(Ok(()), |unit| unit.text(place).map(|_| ()))?;
        Ok(MeterShown { aggregation, unit })
    }

    /// The parts of one subscription do not overlap; of a period they leave nothing out.
    fn check_tiling(&self, plans: &[Plan], subscriptions: &[Subscription]) -> Result<(), Refusal> {
        let mut ends: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        for (index, part) in self.bundle.parts.iter().enumerate() {
            let place = format!("parts[{index}]");
            let Some(section) = self.document.sections.get(part.section) else { continue };
            let (start, _) = dates(section, &place)?;
            let subscription = subscriptions.get(part.subscription);
            let begins = subscription.and_then(|on| on.start).unwrap_or(0).max(start);
            let effective = plans.get(part.plan).and_then(|plan| plan.effective).unwrap_or(0);
            let before = ends.insert((part.section, part.subscription), part.to);
            let follows = match (before, section.kind) {
                (Some(before), SectionKind::Period) => before == part.from,
                (None, SectionKind::Period) => part.from == begins.max(effective),
                (Some(before), SectionKind::Advance | SectionKind::Correction) => {
                    before <= part.from
                }
                (None, SectionKind::Advance | SectionKind::Correction) => true,
            };
            ensure(follows, place, || {
                "it does not begin where its subscription does, or the part before it ends"
                    .to_owned()
            })?;
        }
        for ((section, subscription), last) in ends {
            let place = section_place(section);
            let Some(section) = self.document.sections.get(section) else { continue };
            let (_, end) = dates(section, &place)?;
            let own = subscriptions.get(subscription).and_then(|on| on.end).unwrap_or(u32::MAX);
            let reaches = last == own.min(end) || section.kind != SectionKind::Period;
            ensure(reaches, place, || "its parts end before the period does".to_owned())?;
        }
        Ok(())
    }

    /// Lines of no part take back what is charged no longer.
    fn check_rest(&self) -> Result<(), Refusal> {
        for (number, section) in self.document.sections.iter().enumerate() {
            let taken = self.taken.get(number).map(Vec::as_slice).unwrap_or_default();
            for (index, (line, taken)) in section.lines.iter().zip(taken).enumerate() {
                let place = line_place(number, index);
                if *taken {
                    continue;
                }
                ensure(line.rated.is_none() && line.invoiced_before.is_some(), &place, || {
                    "no part says what it is made of, and it takes back nothing".to_owned()
                })?;
                ensure(rated_amount(self.document.kind, line) == BigInt::ZERO, place, || {
                    "it takes back another amount than was invoiced before".to_owned()
                })?;
            }
        }
        Ok(())
    }

    fn unproved(&mut self, place: &str, what: &str) {
        self.checked.unproved.push(format!("{place}: {what}"));
    }
}

/// What must hold of a part's time.
fn in_time(
    part: &PartText,
    span: Span,
    plan: &Plan,
    subscription: &Subscription,
) -> [(bool, &'static str); 6] {
    let Span { start, from, to, end } = span;
    let trial_end = subscription.trial_end;
    let begins = [Some(start), subscription.start, trial_end, plan.effective];
    [
        (start <= from && from < to && to <= end, "it is no part of its section's period"),
        (begins.contains(&Some(from)), "it begins where nothing of subscription or plan does"),
        (plan.effective.is_none_or(|effective| effective <= from), "its plan takes effect later"),
        (subscription.start.is_none_or(|start| start <= from), "its subscription begins later"),
        (subscription.end.is_none_or(|end| to <= end), "its subscription ends before"),
        (
            part.trial || trial_end.is_none_or(|trial_end| trial_end <= from),
            "its subscription's trial ends within it",
        ),
    ]
}

/// A section's period, in buckets.
fn dates(section: &Section, place: &str) -> Result<(u32, u32), Refusal> {
    let start = instant::bucket(&section.start, place)?;
    let end = instant::bucket(&section.end, place)?;
    ensure(start < end, place, || "its period ends before it begins".to_owned())?;
    Ok((start, end))
}

/// The run's date is where a period ends, or one begins of which fees are due in advance.
fn check_dates(section: &Section, period_end: &str, place: &str) -> Result<(), Refusal> {
    dates(section, place)?;
    let edge = match section.kind {
        SectionKind::Period => &section.end,
        SectionKind::Advance => &section.start,
        SectionKind::Correction => return Ok(()),
    };
    ensure(edge.split('T').next() == Some(period_end), place, || {
        format!("its period has its edge at {edge}, and not on {period_end}")
    })
}

/// Whether so many quarters of an hour may be a period of the interval, changes of clocks among them.
fn is_length(interval: &str, quarters: u32) -> bool {
    let (least, most): (u32, u32) = match interval {
        "day" => (1, 1),
        "week" => (7, 7),
        "month" => (28, 31),
        "quarter" => (89, 92),
        "year" => (365, 366),
        _ => return false,
    };
    let (least, most) = (least.saturating_mul(96), most.saturating_mul(96));
    (least.saturating_sub(96)..=most.saturating_add(96)).contains(&quarters)
}
