//! A table of any view: sorted, filtered, and fitted into a terminal.

use std::{cmp::Ordering, fmt, net::IpAddr};

use super::rates::short;
use crate::cli::show::span;

/// Narrower than so no text is cut while there are columns to leave out instead.
const COMFORT: usize = 19;
/// Narrower than so no text is ever cut.
const NARROWEST: usize = 8;

/// A column of a view.
pub(super) struct Column {
    /// What stands on top.
    pub(super) name: &'static str,
    /// Whether it holds numbers, flush right.
    pub(super) number: bool,
    /// Where not all have room the highest is left out first; 0 always stays.
    pub(super) rank: u8,
}

impl Column {
    /// A column of text.
    pub(super) const fn text(name: &'static str, rank: u8) -> Self {
        let number = false;
        Self { name, number, rank }
    }

    /// A column of numbers.
    pub(super) const fn number(name: &'static str, rank: u8) -> Self {
        let number = true;
        Self { name, number, rank }
    }
}

/// What stands in a place of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Words.
    Text(String),
    /// An address, sorted as a number.
    Ip(IpAddr),
    /// A number as it is.
    Count(u64),
    /// So many in a second; none where that is not known.
    Rate(Option<f64>),
    /// Of 1; none where there is nothing to share.
    Share(Option<f64>),
    /// So many of so many.
    Of(usize, usize),
    /// For so many seconds, or at least so many.
    For {
        /// How many.
        seconds: u64,
        /// Whether it may be more.
        more: bool,
    },
}

/// How a row is, which its colour tells beside its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be.
    #[default]
    Well,
    /// Worth a look.
    Odd,
    /// Traffic suffers.
    Bad,
}

/// A row of a view.
pub(super) struct Row {
    /// What tells it from all others, in the next answer too.
    pub(super) key: String,
    /// One for each column.
    pub(super) cells: Vec<Cell>,
    /// How it is.
    pub(super) mood: Mood,
    /// More of it, where it is selected.
    pub(super) detail: String,
}

/// A view's table.
pub(super) struct Sheet {
    /// The columns.
    pub(super) columns: &'static [Column],
    /// The rows.
    pub(super) rows: Vec<Row>,
}

impl Sheet {
    /// Leaves the rows that have the text in one of their words, in whatever case.
    pub(super) fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        let has = |cell: &Cell| match cell {
            Cell::Text(it) => it.to_lowercase().contains(&text),
            Cell::Ip(it) => it.to_string().contains(&text),
            _ => false,
        };
        self.rows.retain(|row| row.cells.iter().any(has));
    }

    /// Sorts by a column; equals stay in the order of the first ones.
    pub(super) fn sort(&mut self, column: usize, descending: bool) {
        let by = |a: &Row, b: &Row| match (a.cells.get(column), b.cells.get(column)) {
            (Some(a), Some(b)) if descending => b.order(a),
            (Some(a), Some(b)) => a.order(b),
            _ => Ordering::Equal,
        };
        self.rows.sort_by(by);
    }

    /// Which columns have room in so many characters, with one between them, and how wide
    /// each is then. That which is sorted by has an arrow on top.
    pub(super) fn fit(&self, width: usize, sorted: usize) -> Vec<(usize, usize)> {
        let widest = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(index));
            let widths = cells.map(|cell| cell.to_string().chars().count());
            let head = column.name.len() + usize::from(index == sorted);
            (index, widths.max().unwrap_or(0).max(head))
        };
        let mut kept: Vec<(usize, usize)> = self.columns.iter().enumerate().map(widest).collect();
        let rank = |index: usize| self.columns.get(index).map_or(0, |it| it.rank);
        let is_text = |index: usize| self.columns.get(index).is_some_and(|it| !it.number);
        let total = |kept: &[(usize, usize)], most: usize| {
            let widths = kept.iter().map(|&(index, width)| match is_text(index) {
                true => width.min(most),
                false => width,
            });
            widths.sum::<usize>() + kept.len().saturating_sub(1)
        };
        while total(&kept, COMFORT) > width
            && let Some(place) = (0..kept.len()).max_by_key(|&place| rank(kept[place].0))
            && rank(kept[place].0) > 0
        {
            kept.remove(place);
        }
        while total(&kept, usize::MAX) > width {
            let texts = kept.iter_mut().filter(|(index, _)| is_text(*index));
            match texts.max_by_key(|(_, width)| *width) {
                Some((_, widest)) if *widest > NARROWEST => *widest -= 1,
                _ => break,
            }
        }
        kept
    }
}

impl Cell {
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Ip(a), Self::Ip(b)) => a.cmp(b),
            (Self::Count(a), Self::Count(b)) => a.cmp(b),
            (a, b) => a.number().total_cmp(&b.number()),
        }
    }

    /// What is not known comes before everything.
    fn number(&self) -> f64 {
        match self {
            Self::Text(_) | Self::Ip(_) | Self::Rate(None) | Self::Share(None) => -1.0,
            Self::Count(it) => *it as f64,
            Self::Rate(Some(it)) | Self::Share(Some(it)) => *it,
            Self::Of(some, _) => *some as f64,
            Self::For { seconds, .. } => *seconds as f64,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(it) => f.write_str(it),
            Self::Ip(it) => it.fmt(f),
            Self::Count(it) => it.fmt(f),
            Self::Rate(Some(it)) => f.write_str(&short(*it)),
            Self::Share(Some(it)) => write!(f, "{:.0}%", 100.0 * it),
            Self::Rate(None) | Self::Share(None) => f.write_str("-"),
            Self::Of(some, all) => write!(f, "{some}/{all}"),
            Self::For { seconds, more } => {
                let more = if *more { ">" } else { "" };
                write!(f, "{more}{}", span(*seconds))
            }
        }
    }
}

/// A text in so many characters. What is left out is in its middle: names of a kind differ
/// at their ends.
pub(super) fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return text.chars().take(width).collect();
    }
    let tail = (width - 1) / 2;
    let head = text.chars().take(width - 1 - tail);
    let tail = text.chars().skip(length - tail);
    head.chain(['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: [Column; 4] = [
        Column::text("NAME", 0),
        Column::text("MODE", 2),
        Column::number("PPS", 0),
        Column::number("BPS", 1),
    ];

    fn sheet() -> Sheet {
        let row = |name: &str, rate| Row {
            key: name.to_owned(),
            cells: vec![
                Cell::Text(name.to_owned()),
                Cell::Text("local".to_owned()),
                Cell::Rate(rate),
                Cell::Rate(rate),
            ],
            mood: Mood::Well,
            detail: String::new(),
        };
        Sheet {
            columns: &COLUMNS,
            rows: vec![
                row("default/a-service-with-a-name", Some(5.0)),
                row("default/b", None),
                row("default/c", Some(70.0)),
                row("Default/d", Some(5.0)),
            ],
        }
    }

    fn ends(sheet: &Sheet) -> String {
        let ends = sheet.rows.iter().filter_map(|it| it.key.chars().last());
        ends.collect()
    }

    #[test]
    fn rows_are_sorted_by_number_and_equals_stay() {
        let mut sheet = sheet();
        sheet.sort(2, true);
        assert_eq!(ends(&sheet), "cedb");
        sheet.sort(2, false);
        assert_eq!(ends(&sheet), "bedc");
    }

    #[test]
    fn rows_are_filtered_in_whatever_case() {
        let mut sheet = sheet();
        sheet.filter("DEFAULT/D");
        assert_eq!(ends(&sheet), "d");
    }

    #[test]
    fn columns_are_left_out_before_names_are_cut() {
        let sheet = sheet();
        // 29 + 5 + 4 + 4 and what is between them.
        assert_eq!(sheet.fit(60, 2), [(0, 29), (1, 5), (2, 4), (3, 4)]);
        assert_eq!(sheet.fit(40, 2), [(0, 24), (1, 5), (2, 4), (3, 4)]);
        assert_eq!(sheet.fit(33, 2), [(0, 23), (2, 4), (3, 4)]);
        assert_eq!(sheet.fit(26, 2), [(0, 21), (2, 4)]);
        assert_eq!(sheet.fit(5, 2), [(0, 8), (2, 4)]);
    }

    #[test]
    fn texts_are_cut_in_their_middle() {
        assert_eq!(cut("default/web-0", 13), "default/web-0");
        assert_eq!(cut("default/web-0", 8), "defa…b-0");
        assert_eq!(cut("default/web-0", 1), "…");
        assert_eq!(cut("default/web-0", 0), "");
    }
}
