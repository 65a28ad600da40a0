//! Lines in columns, for a terminal of any width: columns give way in an order that the command decides.

use super::terminal::{Terminal, fitted, width};

/// The columns of a table, and where they are shown.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    /// The columns of the terminal; `None`: no text is cut.
    room: Option<usize>,
    has_colour: bool,
}

/// A column; one without a width is not shown.
#[derive(Debug, Clone)]
pub struct Column {
    heading: &'static str,
    width: usize,
    /// Numbers are aligned to the right.
    is_right: bool,
}

/// How a column gives way where the room does not suffice.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// It is left out.
    Drop(usize),
    /// It shrinks to this width.
    Shrink(usize, usize),
}

/// A text in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    is_failed: bool,
}

impl Column {
    /// A column of texts, as wide as its heading and at least `least`.
    pub fn left(heading: &'static str, least: usize) -> Column {
        Column {
            heading,
            width: least.max(width(heading)),
            is_right: false,
        }
    }

    /// A column of numbers.
    pub fn right(heading: &'static str, least: usize) -> Column {
        Column {
            is_right: true,
            ..Column::left(heading, least)
        }
    }
}

impl Cell {
    /// A text in red where the terminal has colours and `is_failed`.
    pub fn failed_if(is_failed: bool, text: impl Into<String>) -> Cell {
        let text = text.into();
        Cell { text, is_failed }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::failed_if(false, text)
    }
}

impl Table {
    /// These columns on `terminal`. Each step is taken until they fit; room that is left then goes back to columns that shrank.
    pub fn new(mut columns: Vec<Column>, terminal: Option<Terminal>, steps: &[Step]) -> Table {
        let room = terminal.map(|terminal| terminal.columns);
        let wanted: Vec<usize> = columns.iter().map(|column| column.width).collect();
        let missing =
            |columns: &[Column]| total(columns).saturating_sub(room.unwrap_or(usize::MAX));
        for &step in steps {
            match (step, missing(&columns)) {
                (_, 0) => break,
                (Step::Drop(index), _) => columns[index].width = 0,
                (Step::Shrink(index, least), missing) => {
                    let width = &mut columns[index].width;
                    *width = least.max(width.saturating_sub(missing)).min(*width);
                }
            }
        }
        let mut left = room.unwrap_or_default().saturating_sub(total(&columns));
        for (column, wanted) in columns.iter_mut().zip(wanted) {
            if column.width > 0 {
                let more = left.min(wanted - column.width);
                column.width += more;
                left -= more;
            }
        }
        Table {
            columns,
            room,
            has_colour: terminal.is_some_and(|terminal| terminal.has_colour),
        }
    }

    /// As [`Table::new`], with columns as wide as the cells of `rows`.
    pub fn of_rows(
        mut columns: Vec<Column>,
        rows: &[Vec<Cell>],
        terminal: Option<Terminal>,
        steps: &[Step],
    ) -> Table {
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                // The last text of a line may go beyond its column.
                if !is_last(row, index) || index + 1 == columns.len() {
                    columns[index].width = columns[index].width.max(width(&cell.text));
                }
            }
        }
        Table::new(columns, terminal, steps)
    }

    /// Returns the headings of the columns, and a line end.
    pub fn heading(&self) -> String {
        let headings = self.columns.iter().map(|column| column.heading.into());
        self.line(&headings.collect::<Vec<Cell>>())
    }

    /// Returns a line of the table, and a line end. The last text takes what is left of the line.
    pub fn line(&self, cells: &[Cell]) -> String {
        let (mut line, mut taken) = (String::new(), 0);
        let shown = self.columns.iter().zip(cells).enumerate();
        for (index, (column, cell)) in shown.filter(|(_, (column, _))| column.width > 0) {
            if taken > 0 {
                line.push_str(GAP);
                taken += GAP.len();
            }
            let is_last = is_last(cells, index);
            let room = match self.room.map(|room| room.saturating_sub(taken)) {
                None => usize::MAX,
                Some(left) if is_last => left,
                Some(left) => column.width.min(left),
            };
            let text = fitted(&cell.text, room);
            let length = width(&text);
            let padding = " ".repeat(column.width.saturating_sub(length));
            let (before, after) = match column.is_right {
                true => (&*padding, ""),
                false => ("", &*padding),
            };
            let (colour, plain) = match self.has_colour && cell.is_failed {
                true => ("\x1b[31m", "\x1b[0m"),
                false => ("", ""),
            };
            line.extend([before, colour, &text, plain, after]);
            taken += before.len() + length + after.len();
            if is_last {
                break;
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line.push('\n');
        line
    }
}

/// Whether the cells behind `index` are empty.
fn is_last(cells: &[Cell], index: usize) -> bool {
    cells[index + 1..].iter().all(|cell| cell.text.is_empty())
}

/// The width of a line.
fn total(columns: &[Column]) -> usize {
    let shown = columns.iter().filter(|column| column.width > 0);
    let with_gaps: usize = shown.map(|column| column.width + GAP.len()).sum();
    with_gaps.saturating_sub(GAP.len())
}

/// Between two columns.
const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(columns: usize) -> Option<Terminal> {
        Some(Terminal {
            columns,
            rows: 24,
            has_colour: true,
            moves_cursor: true,
        })
    }

    #[test]
    fn columns_give_way_in_order() {
        #[track_caller]
        fn check(columns: Option<usize>, cells: [&str; 3], expected: &str) {
            let steps = [Step::Shrink(2, 5), Step::Drop(1), Step::Shrink(0, 2)];
            let table = Table::new(
                vec![
                    Column::left("NAME", 6),
                    Column::right("COUNT", 0),
                    Column::left("URL", 10),
                ],
                columns.and_then(terminal),
                &steps,
            );
            let line = table.line(&cells.map(Cell::from));
            assert_eq!(line, format!("{expected}\n"));
        }
        let row = ["shop", "12", "http://a.example"];
        check(None, row, "shop       12  http://a.example");
        check(Some(40), row, "shop       12  http://a.example");
        check(Some(24), row, "shop       12  http://a…");
        check(Some(20), row, "shop       12  http…");
        check(Some(17), row, "shop    http://a…");
        check(Some(9), row, "s…  http…");
        check(Some(4), row, "s…");
        // The last text has the rest of the line.
        check(Some(17), ["in use by node", "", ""], "in use by node");
        check(Some(9), ["in use by node", "", ""], "in use…");
        check(Some(24), ["日本", "1", "u"], "日本        1  u");
        check(
            None,
            ["longer than its column", "1", "u"],
            "longer than its column      1  u",
        );
    }

    #[test]
    fn colours_take_no_room() {
        let columns = || vec![Column::left("A", 4), Column::left("B", 2)];
        let cells = [Cell::failed_if(true, "bad"), Cell::from("x")];
        let table = Table::new(columns(), terminal(8), &[]);
        assert_eq!(table.line(&cells), "\x1b[31mbad\x1b[0m   x\n");
        assert_eq!(table.heading(), "A     B\n");
        let table = Table::new(columns(), None, &[]);
        assert_eq!(table.line(&cells), "bad   x\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_rows() {
        let rows = [["8888", "shop", ""], ["8", "s", "3"]].map(|row| row.map(Cell::from).to_vec());
        let columns = ["PORT", "NAME", "N"]
            .map(|heading| Column::right(heading, 0))
            .to_vec();
        let table = Table::of_rows(columns, &rows, None, &[]);
        assert_eq!(table.line(&rows[1]), "   8     s  3\n");
    }
}
