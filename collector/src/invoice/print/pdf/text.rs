//! Text as glyphs: cut into lines that fit a column, each in the order in which it is read.
//!
//! ```text
//! text -> paragraphs -> lines (between words; within one that is longer than its column)
//!      -> runs of one direction, in the order of Unicode's UAX #9 -> words -> glyphs, as the font shapes them
//! ```
//! Invariants: what is measured is what is drawn; every glyph knows its part of the text, for whoever copies it. No text
//! makes it panic. Limits: lines break at spaces, not by dictionaries; one font, with what it has of each script.
#![expect(
    clippy::float_arithmetic,
    reason = "widths of glyphs, in points: nothing is counted or charged by it"
)]

use std::ops::Range;

use krilla::text::{Font, GlyphId, KrillaGlyph};
use rustybuzz::{Direction, Face, Script, ShapePlan, UnicodeBuffer};
use unicode_bidi::{Level, ParagraphBidiInfo};

use super::Weight;

static REGULAR: &[u8] = include_bytes!("../../../../assets/fonts/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("../../../../assets/fonts/DejaVuSans-Bold.ttf");

/// Letters on one line for each em of its width; the thinnest of the font, `i`, comes to 3.6. So a word without an end
/// takes time as it is long, not as its square.
const LETTERS_PER_EM_MAX: usize = 4;

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Style {
    /// Points.
    pub(super) size: f32,
    pub(super) weight: Weight,
    pub(super) ink: Ink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Black,
    Grey,
    Light,
}

/// One line, ready to be drawn from its left end.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) runs: Vec<Run>,
    pub(super) width: f32,
    pub(super) style: Style,
    /// Whether its paragraph runs from right to left.
    pub(super) is_from_right: bool,
}

/// Glyphs of one direction, from left to right.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) text: String,
    pub(super) glyphs: Vec<KrillaGlyph>,
    width: f32,
}

/// Where the next run begins.
pub(super) fn after(x: f32, run: &Run) -> f32 {
    x + run.width
}

/// The fonts that are compiled in.
pub(super) struct Fonts {
    regular: Shaper,
    bold: Shaper,
}

/// A font, and how it shapes each script that was met.
struct Shaper {
    font: Font,
    face: Face<'static>,
    plans: Vec<(Direction, Script, ShapePlan)>,
}

/// A glyph, with where its part of the text begins.
struct Shaped {
    id: u32,
    cluster: usize,
    advance: [f32; 2],
    offset: [f32; 2],
}

impl Fonts {
    pub(super) fn embedded() -> Self {
        Self { regular: Shaper::new(REGULAR), bold: Shaper::new(BOLD) }
    }

    pub(super) fn of(&self, weight: Weight) -> &Font {
        match weight {
            Weight::Plain => &self.regular.font,
            Weight::Strong => &self.bold.font,
        }
    }

    /// Lines no wider than `width`, at least one.
    pub(super) fn wrap(&mut self, text: &str, style: Style, width: f32) -> Vec<Line> {
        let text = cleaned(text);
        let mut lines = Vec::new();
        for paragraph in text.split('\n') {
            let bidi = ParagraphBidiInfo::new(paragraph, None);
            for range in self.breaks(&bidi, style, width) {
                lines.push(self.line(&bidi, range, style));
            }
        }
        lines
    }

    /// How wide `text` is, if it is not wrapped.
    pub(super) fn width(&mut self, text: &str, style: Style) -> f32 {
        let text = cleaned(text);
        let bidi = ParagraphBidiInfo::new(&text, None);
        self.measure(&bidi, 0..text.len(), style)
    }

    /// Which parts of a paragraph are lines.
    fn breaks(
        &mut self,
        bidi: &ParagraphBidiInfo<'_>,
        style: Style,
        width: f32,
    ) -> Vec<Range<usize>> {
        let mut lines: Vec<Range<usize>> = Vec::new();
        let mut line = 0..0;
        let mut used = 0.0;
        for word in words(bidi.text) {
            let wide = self.wide(bidi, word.clone(), style, width);
            if !line.is_empty() {
                let gap = self.measure(bidi, line.end..word.start, style);
                if used + gap + wide <= width {
                    used += gap + wide;
                    line.end = word.end;
                    continue;
                }
                lines.push(line);
            }
            line = word;
            used = wide;
            while used > width {
                let cut = self.fitting(bidi, line.clone(), style, width);
                lines.push(line.start..cut);
                line.start = cut;
                used = self.wide(bidi, line.clone(), style, width);
            }
        }
        if !line.is_empty() || lines.is_empty() {
            lines.push(line);
        }
        lines
    }

    /// Where a word that is too wide is cut: as late as fits, after at least one letter.
    fn fitting(
        &mut self,
        bidi: &ParagraphBidiInfo<'_>,
        word: Range<usize>,
        style: Style,
        width: f32,
    ) -> usize {
        let text = bidi.text.get(word.clone()).unwrap_or_default();
        let ends: Vec<usize> = text
            .char_indices()
            .skip(1)
            .filter(|(_, next)| !is_joined_to_the_one_before(*next))
            .map(|(at, _)| word.start.saturating_add(at))
            .take(letters_max(style, width))
            .collect();
        let (mut fits, mut over) = (0, ends.len());
        while fits < over {
            let middle = fits.midpoint(over);
            let end = ends.get(middle).copied().unwrap_or(word.end);
            if self.measure(bidi, word.start..end, style) <= width {
                fits = middle.saturating_add(1);
            } else {
                over = middle;
            }
        }
        ends.get(fits.saturating_sub(1)).copied().unwrap_or(word.end)
    }

    /// A word's width; beyond all columns for one of more letters than `column` holds.
    fn wide(
        &mut self,
        bidi: &ParagraphBidiInfo<'_>,
        word: Range<usize>,
        style: Style,
        column: f32,
    ) -> f32 {
        let letters = bidi.text.get(word.clone()).unwrap_or_default().chars();
        match letters.take(letters_max(style, column).saturating_add(1)).count() {
            count if count > letters_max(style, column) => f32::INFINITY,
            _ => self.measure(bidi, word, style),
        }
    }

    fn measure(&mut self, bidi: &ParagraphBidiInfo<'_>, range: Range<usize>, style: Style) -> f32 {
        let levels = bidi.levels.get(range.clone()).unwrap_or_default();
        let mut start = range.start;
        let mut width = 0.0;
        for same in levels.chunk_by(|one, next| one == next) {
            let end = start.saturating_add(same.len());
            let text = bidi.text.get(start..end).unwrap_or_default();
            let level = same.first().copied().unwrap_or(Level::ltr());
            width += self.run(text, level, style).width;
            start = end;
        }
        width
    }

    fn line(&mut self, bidi: &ParagraphBidiInfo<'_>, range: Range<usize>, style: Style) -> Line {
        let mut runs = Vec::new();
        if !range.is_empty() {
            let (levels, ordered) = bidi.visual_runs(range);
            for part in ordered {
                let level = levels.get(part.start).copied().unwrap_or(Level::ltr());
                let text = bidi.text.get(part).unwrap_or_default();
                runs.push(self.run(text, level, style));
            }
            runs.retain(|run| !run.glyphs.is_empty());
        }
        let width = runs.iter().map(|run| run.width).sum();
        Line { runs, width, style, is_from_right: bidi.paragraph_level.is_rtl() }
    }

    /// Word by word, so that words of different scripts are each shaped by their own rules.
    fn run(&mut self, text: &str, level: Level, style: Style) -> Run {
        let shaper = match style.weight {
            Weight::Plain => &mut self.regular,
            Weight::Strong => &mut self.bold,
        };
        let text: String = text.chars().filter(|next| !is_isolate(*next)).collect();
        let direction =
            if level.is_rtl() { Direction::RightToLeft } else { Direction::LeftToRight };
        let mut pieces = pieces(&text);
        if level.is_rtl() {
            pieces.reverse();
        }
        let glyphs: Vec<KrillaGlyph> =
            pieces.into_iter().flat_map(|piece| shaper.shape(&text, piece, direction)).collect();
        let width = glyphs.iter().map(|glyph| glyph.x_advance * style.size).sum();
        Run { text, glyphs, width }
    }
}

impl Shaper {
    fn new(data: &'static [u8]) -> Self {
        let font = Font::new(data.into(), 0).expect("the font that is compiled in is whole");
        let face = Face::from_slice(data, 0).expect("the font that is compiled in is whole");
        Self { font, face, plans: Vec::new() }
    }

    /// The glyphs of one piece of `text`, from left to right, in parts of the font's size.
    fn shape(&mut self, text: &str, piece: Range<usize>, direction: Direction) -> Vec<KrillaGlyph> {
        let units = self.font.units_per_em();
        let shaped = self.shaped(text.get(piece.clone()).unwrap_or_default(), direction);
        let mut starts: Vec<usize> = shaped.iter().map(|glyph| glyph.cluster).collect();
        starts.sort_unstable();
        let own = shaped.into_iter().map(|glyph| {
            let next = starts.partition_point(|start| *start <= glyph.cluster);
            let end = starts.get(next).map(|end| piece.start.saturating_add(*end));
            let range = piece.start.saturating_add(glyph.cluster)..end.unwrap_or(piece.end);
            let ([x_advance, y_advance], [x_offset, y_offset]) = (glyph.advance, glyph.offset);
            KrillaGlyph::new(
                GlyphId::new(glyph.id),
                x_advance / units,
                x_offset / units,
                y_offset / units,
                y_advance / units,
                range,
                None,
            )
        });
        own.collect()
    }

    fn shaped(&mut self, piece: &str, direction: Direction) -> Vec<Shaped> {
        let mut buffer = UnicodeBuffer::new();
        buffer.push_str(piece);
        buffer.guess_segment_properties();
        buffer.set_direction(direction);
        let script = buffer.script();
        let known = self.plans.iter().position(|(way, of, _)| (*way, *of) == (direction, script));
        let place = known.unwrap_or_else(|| {
            let plan = ShapePlan::new(&self.face, direction, Some(script), None, &[]);
            self.plans.push((direction, script, plan));
            self.plans.len().saturating_sub(1)
        });
        let (_, _, plan) = self.plans.get(place).expect("it was found or pushed");
        let shaped = rustybuzz::shape_with_plan(&self.face, plan, buffer);
        let glyphs = shaped.glyph_infos().iter().zip(shaped.glyph_positions());
        let own = glyphs.map(|(info, position)| Shaped {
            id: info.glyph_id,
            cluster: usize::try_from(info.cluster).expect("a place in a text that is in memory"),
            advance: [position.x_advance as f32, position.y_advance as f32],
            offset: [position.x_offset as f32, position.y_offset as f32],
        });
        own.collect()
    }
}

/// How many letters a line may have.
fn letters_max(style: Style, width: f32) -> usize {
    let ems = (0_u16..=u16::MAX).find(|ems| f32::from(*ems) * style.size >= width);
    usize::from(ems.unwrap_or(u16::MAX)).saturating_mul(LETTERS_PER_EM_MAX)
}

/// `text` with its own direction, whatever stands around it.
pub(super) fn isolated(text: &str) -> String {
    let text = text.replace(is_bidi_control, "");
    format!("\u{2068}{text}\u{2069}")
}

/// One character for each kind of space, `\n` for each kind of line end; none that would turn what follows.
fn cleaned(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let cleaned = text.chars().filter(|next| !is_bidi_control(*next) || is_isolate(*next));
    cleaned
        .map(|next| match next {
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => '\n',
            control if control.is_control() => ' ',
            other => other,
        })
        .collect()
}

/// What turns the text after it: embeddings, overrides, isolates.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_isolate(character: char) -> bool {
    matches!(character, '\u{2066}'..='\u{2069}')
}

/// Marks, joiners and selectors are drawn with the letter before them.
fn is_joined_to_the_one_before(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}'..='\u{5c2}' | '\u{5c4}'..='\u{5c5}'
        | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}' | '\u{200c}'..='\u{200f}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{2066}'..='\u{2069}')
}

/// Where lines may break: not at a no-break space.
fn is_space(character: char) -> bool {
    character == ' '
        || (character.is_whitespace() && !matches!(character, '\u{a0}' | '\u{202f}' | '\u{2007}'))
}

fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let own = pieces(text).into_iter();
    own.filter(|piece| !text.get(piece.clone()).is_some_and(|piece| piece.starts_with(is_space)))
}

/// Words and the spaces between them.
fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut was_space = None;
    for (at, character) in text.char_indices() {
        let end = at.saturating_add(character.len_utf8());
        let is_space = is_space(character);
        match pieces.last_mut() {
            Some(last) if was_space == Some(is_space) => last.end = end,
            Some(_) | None => pieces.push(at..end),
        }
        was_space = Some(is_space);
    }
    pieces
}
