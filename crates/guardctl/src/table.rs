//! Tables: columns as wide as they need to be, two spaces apart.

use crate::terminal::{Paint, Tone};

/// One cell; its text is harmless already.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// Rows of the same number of cells.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

impl Table {
    /// Without a heading.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With a heading.
    pub(crate) fn headed(heading: &[&str]) -> Self {
        let row = heading.iter().map(|h| Cell::toned(Tone::Dim, *h)).collect();
        Self { rows: vec![row], indent: 0 }
    }

    /// Every line starts with so many spaces.
    pub(crate) fn indented(mut self, by: usize) -> Self {
        self.indent = by;
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The lines, each with its newline. The last column is not padded.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(Cell::width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            // Trailing empty cells leave no trailing spaces.
            let used = row.iter().rposition(|c| !c.text.is_empty()).map_or(0, |at| at + 1);
            out.push_str(&" ".repeat(if used > 0 { self.indent } else { 0 }));
            for (at, (cell, width)) in row.iter().zip(&widths).take(used).enumerate() {
                out.push_str(&paint.tone(cell.tone, &cell.text));
                if at + 1 < used {
                    out.push_str(&" ".repeat(width - cell.width() + 2));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut t = Table::headed(&["ID", "WHAT"]).indented(2);
        t.row(["1".into(), "größe".into()]);
        t.row(["1234".into(), Cell::from("")]);
        assert_eq!(t.render(Paint::OFF), "  ID    WHAT\n  1     größe\n  1234\n");
    }
}
