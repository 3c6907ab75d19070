//! Columns of text with their heads, as wide as they need to be.

use std::fmt;

use crate::text::Show;

/// Rows of `N` cells.
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Begins with the heads of the columns.
    pub fn new(heads: [&str; N]) -> Self {
        Self { rows: vec![heads.map(str::to_owned)] }
    }

    /// Adds a row. Cells have one line, whatever is in them.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| cell.shown().to_string()));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line += &format!("{cell:<width$}  ", width = width(column));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let mut table = Table::new(["a", "bb"]);
        table.row(["long".into(), "x".into()]);
        assert_eq!(table.to_string(), "a     bb\nlong  x\n");
        table.row(["\x1b\n".into(), "y".into()]);
        assert_eq!(table.to_string().lines().last(), Some(r"\u{1b}\n  y"));
    }
}
