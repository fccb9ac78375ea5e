//! Pages, filled from the top: rows of cells, ruled, with what repeats at the top of each page.
//!
//! Invariants: a row of up to [`KEPT_LINES`] lines stands on one page; a longer one goes on over pages, line by line.
//! What does not fit its page ends it. Lengths are points, from the top left corner.
#![expect(
    clippy::float_arithmetic,
    reason = "where things stand on paper, in points: nothing is counted or charged by it"
)]

use super::text::{Ink, Line};

/// A4.
pub(super) const WIDTH: f32 = 595.28;
pub(super) const HEIGHT: f32 = 841.89;
pub(super) const LEFT: f32 = 48.0;
pub(super) const RIGHT: f32 = WIDTH - LEFT;
pub(super) const BODY_WIDTH: f32 = RIGHT - LEFT;
const TOP: f32 = 48.0;
const BOTTOM: f32 = HEIGHT - 64.0;
/// The baseline of the foot.
const FOOT: f32 = HEIGHT - 40.0;
/// What a rule takes, with the space around it.
pub(super) const RULED: f32 = 4.0;
/// Rows of more lines are cut where the page ends.
const KEPT_LINES: usize = 12;

/// Where lines stand in their cell.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    /// Where the line's own direction begins.
    Start,
    /// Right, as numbers are.
    End,
}

/// Lines below each other.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    left: f32,
    width: f32,
    align: Align,
    pub(super) lines: Vec<Line>,
}

impl Cell {
    pub(super) fn new(left: f32, width: f32, align: Align, lines: Vec<Line>) -> Self {
        Self { left, width, align, lines }
    }

    /// Its first line, at the foot of the page.
    pub(super) fn foot(&self) -> Option<Mark> {
        let line = self.lines.first()?.clone();
        Some(Mark::Text { x: self.x(&line), line, y: FOOT })
    }

    fn x(&self, line: &Line) -> f32 {
        let right = self.left + self.width - line.width;
        match (self.align, line.is_from_right) {
            (Align::Left, _) | (Align::Start, false) => self.left,
            (Align::Start, true) | (Align::End, _) => right,
        }
    }
}

/// Cells beside each other.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    pub(super) leading: f32,
}

impl Row {
    fn lines(&self) -> usize {
        self.cells.iter().map(|cell| cell.lines.len()).max().unwrap_or_default()
    }

    pub(super) fn height(&self) -> f32 {
        (0..self.lines()).map(|_| self.leading).sum()
    }
}

/// What is drawn.
#[derive(Debug)]
pub(super) enum Mark {
    Text {
        line: Line,
        x: f32,
        y: f32,
    },
    /// From `x` to the right margin.
    Rule {
        x: f32,
        y: f32,
        ink: Ink,
    },
}

/// The pages so far.
#[derive(Debug)]
pub(super) struct Pages {
    full: Vec<Vec<Mark>>,
    page: Vec<Mark>,
    /// Where the next row begins.
    y: f32,
    repeated: Vec<Row>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { full: Vec::new(), page: Vec::new(), y: TOP, repeated: Vec::new() }
    }

    /// What stands at the top of the pages that follow, ruled below its first row.
    pub(super) fn repeat(&mut self, rows: Vec<Row>) {
        self.repeated = rows;
    }

    /// Leaves `height` free, but not at the top of a page.
    pub(super) fn skip(&mut self, height: f32) {
        if !self.page.is_empty() {
            self.y += height;
        }
    }

    /// Ends the page if it has less than `height` left.
    pub(super) fn keep(&mut self, height: f32) {
        if self.y + height > BOTTOM && !self.page.is_empty() {
            self.turn();
        }
    }

    pub(super) fn row(&mut self, row: &Row) {
        let lines = row.lines();
        if lines <= KEPT_LINES {
            self.keep(row.height());
        }
        for at in 0..lines {
            self.keep(row.leading);
            // Letters stand on the baseline and hang below it.
            let y = self.y + row.leading * 0.75;
            for cell in &row.cells {
                if let Some(line) = cell.lines.get(at) {
                    let (line, x) = (line.clone(), cell.x(line));
                    self.page.push(Mark::Text { line, x, y });
                }
            }
            self.y += row.leading;
        }
    }

    /// A line from `left` to the right margin.
    pub(super) fn rule(&mut self, left: f32, ink: Ink) {
        let y = self.y + RULED / 2.0;
        self.page.push(Mark::Rule { x: left, y, ink });
        self.y += RULED;
    }

    /// Each page's marks; at least one page.
    pub(super) fn finish(mut self) -> Vec<Vec<Mark>> {
        self.full.push(self.page);
        self.full
    }

    fn turn(&mut self) {
        self.full.push(std::mem::take(&mut self.page));
        self.y = TOP;
        let repeated = std::mem::take(&mut self.repeated);
        for (at, row) in repeated.iter().enumerate() {
            self.row(row);
            if at == 0 {
                self.rule(LEFT, Ink::Black);
            }
            self.y += 0.5 * RULED;
        }
        self.repeated = repeated;
    }
}

/// A column `width` wide, and one of the rest.
pub(super) fn split(width: f32) -> ([f32; 2], [f32; 2]) {
    ([LEFT, width], [LEFT + width, BODY_WIDTH - width])
}

/// Two columns, `gap` apart.
pub(super) fn halves(gap: f32) -> [[f32; 2]; 2] {
    let width = (BODY_WIDTH - gap) / 2.0;
    [[LEFT, width], [RIGHT - width, width]]
}
