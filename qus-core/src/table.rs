//! Text in aligned columns with heads.
//!
//! ```
//! use qus_core::table::Table;
//!
//! let mut table = Table::new(["host", "emulators"]);
//! table.row(["amd64", "33"]);
//! assert_eq!(table.to_string(), "host   emulators\namd64  33\n");
//! assert_eq!(table.numbers_from(1).to_string(), "host   emulators\namd64         33\n");
//! ```

use std::fmt;

use crate::text::Show;

/// Rows of cells, the first of which are the heads.
pub struct Table {
    rows: Vec<Vec<String>>,
    numbers_from: usize,
}

impl Table {
    /// Begins with the heads of the columns.
    pub fn new<S: AsRef<str>>(heads: impl IntoIterator<Item = S>) -> Self {
        let mut this = Self { rows: Vec::new(), numbers_from: usize::MAX };
        this.row(heads);
        this
    }

    /// Aligns this column and the following ones to the right, as numbers are.
    pub fn numbers_from(self, column: usize) -> Self {
        Self { numbers_from: column, ..self }
    }

    /// Adds a row, which may have fewer cells than others. Cells have one line, whatever is in them.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| cell.as_ref().shown().to_string()).collect());
    }

    /// The table, or where its lines are longer than `width`, a list of its rows with one cell on each line.
    pub fn fit(&self, width: Option<usize>) -> String {
        if self.fits(width) { self.to_string() } else { self.list() }
    }

    /// Whether no line of the table is longer than `width`.
    pub fn fits(&self, width: Option<usize>) -> bool {
        let fits = |width| self.to_string().lines().all(|line| line.chars().count() <= width);
        width.is_none_or(fits)
    }

    fn list(&self) -> String {
        let Some((heads, rows)) = self.rows.split_first() else { return String::new() };
        let width = heads.iter().skip(1).map(|head| head.chars().count()).max().unwrap_or(0);
        let mut list = String::new();
        for row in rows {
            list += &format!("{}\n", row.first().map_or("", String::as_str));
            for (head, cell) in heads.iter().zip(row).skip(1) {
                list += format!("  {head:<width$}  {cell}").trim_end();
                list += "\n";
            }
        }
        list
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> =
            (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max()).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column].unwrap_or(0);
                line += &match column < self.numbers_from {
                    true => format!("{cell:<width$}  "),
                    false => format!("{cell:>width$}  "),
                };
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
        table.row(["long", "x"]);
        assert_eq!(table.to_string(), "a     bb\nlong  x\n");
        table.row(["\x1b\n", "y"]);
        assert_eq!(table.to_string().lines().last(), Some(r"\u{1b}\n  y"));
    }

    #[test]
    fn a_table_that_is_too_wide_becomes_a_list() {
        let mut table = Table::new(["name", "b", "long"]);
        table.row(["one", "x", "two words"]);
        table.row(["three", ""]);
        assert_eq!(table.fit(Some(19)), table.to_string());
        assert_eq!(table.fit(None), table.to_string());
        assert_eq!(table.fit(Some(18)), "one\n  b     x\n  long  two words\nthree\n  b\n");
    }

    #[test]
    fn rows_may_be_short_and_numbers_end_together() {
        let mut table = Table::new(["", "10.2.2", "11.0.0"]).numbers_from(1);
        table.row(["exit", "1.00x", "12.00x"]);
        table.row(["sum", "1.00x"]);
        assert_eq!(table.to_string(), "      10.2.2  11.0.0\nexit   1.00x  12.00x\nsum    1.00x\n");
    }
}
