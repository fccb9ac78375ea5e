//! A document as PDF: A4, text that can be searched and copied, fonts embedded as far as they are used.
//!
//! ```text
//! pages   title, facts, parties | table, its head again on every page | totals, notes   what stands where
//! text    one text -> lines as wide as their column -> glyphs                           how wide it is
//! ```
//! **Owns** what the pages say, and the file. No clock is read: the same document gives the same bytes. A letter that
//! the font lacks is drawn as a box, and still copied as what it is.
#![expect(
    clippy::float_arithmetic,
    reason = "where things stand on paper, in points: nothing is counted or charged by it"
)]

mod pages;
mod text;

use krilla::color::luma;
use krilla::error::KrillaError;
use krilla::geom::{PathBuilder, Point};
use krilla::metadata::Metadata;
use krilla::num::NormalizedF32;
use krilla::page::PageSettings;
use krilla::paint::{Fill, Stroke};
use krilla::{Document, SerializeSettings};
use thiserror::Error;

use pages::{Align, Cell, Mark, Pages, Row};
use text::{Fonts, Ink, Style};

use super::{Printed, Sum, Weight};
use super::{cut, facts, is_any_invoiced_before, kind, name, span, sums, title};
use crate::invoice::{DocumentLine, DocumentSection, PartyShown};

const BODY: Style = Style { size: 9.0, weight: Weight::Plain, ink: Ink::Black };
const STRONG: Style = Style { weight: Weight::Strong, ..BODY };
const SMALL: Style = Style { size: 7.5, weight: Weight::Plain, ink: Ink::Grey };
const HEAD: Style = Style { size: 20.0, weight: Weight::Strong, ink: Ink::Black };
/// From one line to the next, in points.
const LEADING: f32 = 12.5;
const HEAD_LEADING: f32 = 25.0;
/// Between two columns.
const GAP: f32 = 12.0;
/// Half of the width, so that the two ends of the foot keep apart.
const FOOT_WIDTH: f32 = 240.0;
/// Where the values of facts begin.
const LABEL_WIDTH: f32 = 100.0;
/// Columns of amounts and taxes are as wide as what they hold, between these.
const AMOUNT_WIDTH: [f32; 2] = [56.0, 110.0];
const TAX_WIDTH: [f32; 2] = [30.0, 80.0];

/// Failed to write a PDF.
#[derive(Debug, Error)]
pub enum PdfError {
    #[error("failed to write the PDF: {0}")]
    Written(#[from] KrillaError),
}

/// Renders `document` as a PDF file.
///
/// # Errors
/// What the format cannot hold, such as more objects than it can number.
pub fn pdf(document: &Printed) -> Result<Vec<u8>, PdfError> {
    let settings = SerializeSettings { enable_tagging: false, ..SerializeSettings::default() };
    written(document, settings)
}

/// Where the columns of the table are.
struct Columns {
    description: [f32; 2],
    tax: [f32; 2],
    before: Option<[f32; 2]>,
    amount: [f32; 2],
}

/// Writes the file, as `settings` say.
pub(super) fn written(
    document: &Printed,
    settings: SerializeSettings,
) -> Result<Vec<u8>, PdfError> {
    let mut fonts = Fonts::embedded();
    let pages = laid_out(document, &mut fonts);
    let mut file = Document::new_with(settings);
    file.set_metadata(
        Metadata::new()
            .title(title(document))
            .authors(vec![name(&document.seller).to_owned()])
            .creator("Tidemark".to_owned())
            .language("en".to_owned()),
    );
    let size = PageSettings::from_wh(pages::WIDTH, pages::HEIGHT).expect("A4 is a size");
    for marks in pages {
        let mut page = file.start_page_with(size.clone());
        let mut surface = page.surface();
        for mark in &marks {
            draw(&mut surface, &fonts, mark);
        }
        surface.finish();
        page.finish();
    }
    Ok(file.finish()?)
}

/// All pages with their feet.
fn laid_out(document: &Printed, fonts: &mut Fonts) -> Vec<Vec<Mark>> {
    let mut pages = typeset(document, fonts).finish();
    let (title, count) = (title(document), pages.len());
    for (marks, number) in pages.iter_mut().zip(1_usize..) {
        let page = format!("Page {number} of {count}");
        for (align, said) in [(Align::Left, title.as_str()), (Align::End, page.as_str())] {
            let lines = fonts.wrap(said, SMALL, FOOT_WIDTH);
            marks.extend(Cell::new(pages::LEFT, pages::BODY_WIDTH, align, lines).foot());
        }
    }
    pages
}

/// Each page's lines, their runs apart, with where they begin and end.
#[cfg(test)]
pub(super) fn said(document: &Printed) -> Vec<Vec<(String, [f32; 2])>> {
    let said = |mark: &Mark| match mark {
        Mark::Rule { .. } => None,
        Mark::Text { line, x, .. } => {
            let runs: Vec<&str> = line.runs.iter().map(|run| run.text.as_str()).collect();
            Some((runs.join("|"), [*x, *x + line.width]))
        }
    };
    let pages = laid_out(document, &mut Fonts::embedded());
    pages.iter().map(|marks| marks.iter().filter_map(said).collect()).collect()
}

fn draw(surface: &mut krilla::surface::Surface<'_>, fonts: &Fonts, mark: &Mark) {
    let paint = |ink| {
        luma::Color::new(match ink {
            Ink::Black => 0,
            Ink::Grey => 90,
            Ink::Light => 200,
        })
    };
    match mark {
        Mark::Rule { x, y, ink } => {
            let mut path = PathBuilder::new();
            path.move_to(*x, *y);
            path.line_to(pages::RIGHT, *y);
            surface.set_fill(None);
            let (paint, width) = (paint(*ink).into(), 0.6);
            surface.set_stroke(Some(Stroke { paint, width, ..Stroke::default() }));
            surface.draw_path(&path.finish().expect("a line has a length"));
        }
        Mark::Text { line, x, y } => {
            surface.set_stroke(None);
            surface.set_fill(Some(Fill {
                paint: paint(line.style.ink).into(),
                opacity: NormalizedF32::ONE,
                ..Fill::default()
            }));
            let mut at = *x;
            for run in &line.runs {
                let font = fonts.of(line.style.weight).clone();
                let start = Point::from_xy(at, *y);
                surface.draw_glyphs(start, &run.glyphs, font, &run.text, line.style.size, false);
                at = text::after(at, run);
            }
        }
    }
}

/// Sets all of `document`.
fn typeset(document: &Printed, fonts: &mut Fonts) -> Pages {
    let mut pages = Pages::new();
    let lines = fonts.wrap(&title(document), HEAD, pages::BODY_WIDTH);
    pages.row(&Row {
        cells: vec![Cell::new(pages::LEFT, pages::BODY_WIDTH, Align::Left, lines)],
        leading: HEAD_LEADING,
    });
    if document.number.is_none() {
        pages.row(&whole(fonts, "DRAFT: not issued, not to be paid", STRONG, Align::Left));
    }
    pages.skip(LEADING);
    for fact in facts(document) {
        let (label, value) = pages::split(LABEL_WIDTH);
        pages.row(&row(vec![
            cell(fonts, label, fact.label, Style { ink: Ink::Grey, ..BODY }, Align::Left),
            cell(fonts, value, &fact.value, BODY, Align::Left),
        ]));
    }
    pages.skip(LEADING);
    let halves = pages::halves(2.0 * GAP);
    let parties = [("From", &document.seller), ("To", &document.customer)];
    let cells = halves.into_iter().zip(parties);
    pages.row(&row(cells.map(|(place, (role, own))| party(fonts, place, role, own)).collect()));
    pages.skip(1.5 * LEADING);
    table(document, fonts, &mut pages);
    pages.skip(LEADING);
    totals(document, fonts, &mut pages);
    pages.skip(LEADING);
    for note in &document.notes {
        pages.row(&whole(fonts, note, BODY, Align::Start));
    }
    if let Some(cut) = cut(document) {
        pages.row(&whole(fonts, &cut, SMALL, Align::Left));
    }
    pages
}

fn row(cells: Vec<Cell>) -> Row {
    Row { cells, leading: LEADING }
}

fn cell(fonts: &mut Fonts, place: [f32; 2], text: &str, style: Style, align: Align) -> Cell {
    let [left, width] = place;
    Cell::new(left, width, align, fonts.wrap(text, style, width))
}

/// A row of one cell, from margin to margin.
fn whole(fonts: &mut Fonts, text: &str, style: Style, align: Align) -> Row {
    row(vec![cell(fonts, [pages::LEFT, pages::BODY_WIDTH], text, style, align)])
}

fn party(fonts: &mut Fonts, place: [f32; 2], role: &str, party: &PartyShown) -> Cell {
    let [left, width] = place;
    let mut lines = fonts.wrap(role, SMALL, width);
    lines.extend(fonts.wrap(name(party), STRONG, width));
    for line in &party.address {
        lines.extend(fonts.wrap(line, BODY, width));
    }
    for (label, value) in [("Tax id", &party.tax_id), ("E-mail", &party.email)] {
        if let Some(value) = value {
            let told = format!("{label}: {}", text::isolated(value));
            lines.extend(fonts.wrap(&told, BODY, width));
        }
    }
    Cell::new(left, width, Align::Start, lines)
}

fn table(document: &Printed, fonts: &mut Fonts, pages: &mut Pages) {
    let columns = columns(document, fonts);
    let amount = format!("Amount, {}", document.currency);
    let mut cells = vec![
        cell(fonts, columns.description, "Description", SMALL, Align::Left),
        cell(fonts, columns.tax, "Tax", SMALL, Align::Left),
    ];
    if let Some(before) = columns.before {
        cells.push(cell(fonts, before, "Invoiced before", SMALL, Align::End));
    }
    cells.push(cell(fonts, columns.amount, &amount, SMALL, Align::End));
    let head = row(cells);
    let is_summed = document.sections.len() > 1;
    for (at, section) in document.sections.iter().enumerate() {
        let heading = heading(section);
        let begun = whole(fonts, &heading, STRONG, Align::Left);
        let again = whole(fonts, &format!("{heading} (continued)"), STRONG, Align::Left);
        if at == 0 {
            pages.keep(6.0 * LEADING);
            pages.row(&head);
            pages.rule(pages::LEFT, Ink::Black);
        }
        // A heading does not end a page.
        pages.keep(4.0 * LEADING);
        pages.skip(0.4 * LEADING);
        pages.row(&begun);
        pages.skip(0.5 * pages::RULED);
        pages.repeat(vec![head.clone(), again]);
        for own in &section.lines {
            pages.row(&line(fonts, &columns, own));
            pages.rule(pages::LEFT, Ink::Light);
        }
        if is_summed {
            pages.row(&row(vec![
                cell(fonts, columns.description, "Sum", SMALL, Align::Left),
                cell(fonts, columns.amount, &section.total, SMALL, Align::End),
            ]));
            pages.rule(pages::LEFT, Ink::Grey);
        }
        pages.repeat(vec![head.clone()]);
    }
    pages.repeat(Vec::new());
}

/// The columns from the right, and what is left for descriptions.
fn columns(document: &Printed, fonts: &mut Fonts) -> Columns {
    let lines = || document.sections.iter().flat_map(|section| &section.lines);
    let mut widest = |texts: &mut dyn Iterator<Item = &str>, [least, most]: [f32; 2]| {
        texts.map(|text| fonts.width(text, BODY)).fold(least, f32::max).min(most)
    };
    let heading = format!("Amount, {}", document.currency);
    let totals = document.sections.iter().map(|section| section.total.as_str());
    let amounts = lines().map(|line| line.amount.as_str()).chain(totals).chain([heading.as_str()]);
    let amount = widest(&mut { amounts }, AMOUNT_WIDTH);
    let before = lines().filter_map(|line| line.invoiced_before.as_deref());
    let before = is_any_invoiced_before(document)
        .then(|| widest(&mut before.chain(["Invoiced before"]), AMOUNT_WIDTH));
    let tax = widest(&mut lines().filter_map(|line| line.tax.as_deref()), TAX_WIDTH);
    let mut right = pages::RIGHT;
    let mut place = |width: f32| {
        let left = right - width;
        right = left - GAP;
        [left, width]
    };
    let (amount, before, tax) = (place(amount), before.map(&mut place), place(tax));
    let description = [pages::LEFT, right - pages::LEFT];
    Columns { description, tax, before, amount }
}

fn heading<R>(section: &DocumentSection<R>) -> String {
    let mut heading = kind(section.kind).to_owned();
    if !section.plan.is_empty() {
        heading.push_str(&format!(": {}", text::isolated(&section.plan)));
    }
    if let Some(span) = span(section) {
        heading.push_str(&format!(", {span}"));
    }
    heading
}

fn line<R>(fonts: &mut Fonts, columns: &Columns, line: &DocumentLine<R>) -> Row {
    let mut description = cell(fonts, columns.description, &line.description, BODY, Align::Start);
    if let Some(details) = &line.details {
        let [_, width] = columns.description;
        description.lines.extend(fonts.wrap(details, SMALL, width));
    }
    let tax = line.tax.as_deref().unwrap_or_default();
    let mut cells = vec![description, cell(fonts, columns.tax, tax, BODY, Align::Left)];
    if let (Some(place), Some(before)) = (columns.before, &line.invoiced_before) {
        cells.push(cell(fonts, place, before, BODY, Align::End));
    }
    cells.push(cell(fonts, columns.amount, &line.amount, BODY, Align::End));
    row(cells)
}

fn totals(document: &Printed, fonts: &mut Fonts, pages: &mut Pages) {
    let [_, [left, width]] = pages::halves(0.0);
    let sums = sums(document);
    let amounts = sums.iter().map(|sum| fonts.width(&sum.amount, STRONG));
    let amount = amounts.fold(AMOUNT_WIDTH[0], f32::max).min(width / 2.0);
    let label = [left, width - amount - GAP];
    let amount = [pages::RIGHT - amount, amount];
    let rows: Vec<(Weight, Row)> = sums
        .iter()
        .map(|sum| {
            let style = match sum.weight {
                Weight::Plain => BODY,
                Weight::Strong => STRONG,
            };
            let label = cell(fonts, label, &told(sum, &document.currency), style, Align::Left);
            (sum.weight, row(vec![label, cell(fonts, amount, &sum.amount, style, Align::End)]))
        })
        .collect();
    pages.keep(rows.iter().map(|(_, row)| row.height() + pages::RULED).sum());
    for (weight, row) in rows {
        if weight == Weight::Strong {
            pages.rule(left, Ink::Black);
        }
        pages.row(&row);
    }
}

fn told(sum: &Sum<'_>, currency: &str) -> String {
    let label = text::isolated(sum.label);
    match sum.weight {
        Weight::Strong => format!("{label}, {currency}"),
        Weight::Plain => format!("{label} {}", sum.note),
    }
}
