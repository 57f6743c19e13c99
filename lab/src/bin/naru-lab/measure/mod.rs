//! What benchmarks share: the arithmetic, and the ways in which their numbers are told.

pub(crate) mod cases;
pub(crate) mod page;
pub(crate) mod plot;
pub(crate) mod stats;

use std::path::{Path, PathBuf};

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Where the numbers go.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Write the rows to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw them as SVG into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) plot: Option<PathBuf>,
    /// Replace what this page says of them; made where it is not there
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// The command that the page is to name
    #[arg(long, hide = true, default_value = "")]
    command: String,
}

// === impl Output ===

impl Output {
    /// Writes the rows, where that was asked for.
    pub(crate) fn write_json(&self, rows: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        write(path, &(serde_json::to_string_pretty(rows)? + "\n"))
    }

    /// Draws a picture, where that was asked for.
    pub(crate) fn write_plot(&self, name: &str, chart: &plot::Chart<'_>) -> anyhow::Result<()> {
        let Some(dir) = &self.plot else {
            return Ok(());
        };
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        write(&dir.join(name), &chart.draw()?)
    }

    /// Puts a text between the page's markers of this name, where that was asked for.
    pub(crate) fn write_page(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let Some(path) = &self.page else {
            return Ok(());
        };
        let old = match std::fs::read_to_string(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => page::HEAD.to_owned(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let by = format!("By `{}`, {}.", self.command, page::machine());
        let new = page::replace(&old, name, &format!("{text}\n{by}\n"))?;
        write(path, &new)
    }
}

/// A table for people, with numbers on the right of all but the first column.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(head.iter().map(|it| it.to_uppercase()));
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The same as Markdown.
pub(crate) fn markdown(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let mut rule = "|---".to_owned();
    rule.push_str(&"|--:".repeat(head.len().saturating_sub(1)));
    let rows = rows.into_iter().map(|row| line(&row));
    format!("{}{rule}|\n{}", line(&head), rows.collect::<String>())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    println!("written: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_to_people_and_to_markdown() {
        let rows = || [vec!["none".to_owned(), "1".to_owned()]];
        let expected = "| candidate | p50, µs |\n|---|--:|\n| none | 1 |\n";
        assert_eq!(markdown(&["candidate", "p50, µs"], rows()), expected);
        let text = table(&["candidate", "p50, µs"], rows()).to_string();
        assert!(text.starts_with("CANDIDATE  P50, ΜS"), "{text}");
    }
}
