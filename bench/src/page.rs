//! The tables of `docs/performance.md`.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::{plot::short, row::Row};

const BEGIN: &str = "<!-- tables: begin -->";
const END: &str = "<!-- tables: end -->";

/// The page with other tables between its markers.
pub(crate) fn with(page: &str, rows: &[Row], command: &str) -> Result<String> {
    let markers = || format!("the page has no `{BEGIN}` … `{END}`");
    let (head, rest) = page.split_once(BEGIN).with_context(markers)?;
    let (_, tail) = rest.split_once(END).with_context(markers)?;
    let machine = machine()?;
    let tables = tables(rows)?;
    Ok(format!(
        "{head}{BEGIN}\n{tables}By `{command}` on {machine}.\n{END}{tail}"
    ))
}

fn tables(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    let mut titles: Vec<String> = Vec::new();
    for row in rows {
        let title = title(row);
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    for name in titles {
        let of: Vec<&Row> = rows.iter().filter(|row| title(row) == name).collect();
        writeln!(text, "### {name}\n\n{}", table(&of)?)?;
    }
    Ok(text)
}

fn title(row: &Row) -> String {
    let what = match row.hook {
        None => "The whole path".to_owned(),
        Some(hook) => format!("The program alone at {hook}"),
    };
    format!(
        "{what}, {}, IPv{}, {} bytes",
        row.direction, row.family, row.size
    )
}

/// A line for each candidate, a column for each number of flows.
fn table(rows: &[&Row]) -> Result<String> {
    let mut flows: Vec<u32> = rows.iter().map(|row| row.flows).collect();
    flows.sort_unstable();
    flows.dedup();
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.candidate.as_str()) {
            names.push(&row.candidate);
        }
    }
    let alone = rows.iter().any(|row| row.instructions.is_some());
    let mut text = "| candidate |".to_owned();
    for &flows in &flows {
        write!(text, " {} |", short(flows))?;
    }
    let last = if alone {
        " instructions | lookups |"
    } else {
        ""
    };
    writeln!(text, "{last}")?;
    let columns = 1 + flows.len() + if alone { 2 } else { 0 };
    writeln!(text, "|{}", "---|".repeat(columns))?;
    for name in names {
        write!(text, "| {name} |")?;
        let mut last = None;
        for &flows in &flows {
            let row = rows
                .iter()
                .find(|row| row.candidate == name && row.flows == flows);
            match row {
                Some(row) => write!(text, " {} |", cell(row))?,
                None => write!(text, " |")?,
            }
            last = row.or(last);
        }
        let program = last.filter(|_| alone);
        if let Some(row) = program {
            let instructions = row.instructions.map_or(String::new(), |it| it.to_string());
            let lookups = row.lookups.map_or(String::new(), |it| it.to_string());
            write!(text, " {instructions} | {lookups} |")?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

fn cell(row: &Row) -> String {
    let mut text = format!("{:.0} ± {:.0}", row.ns_per_packet, row.spread / 2.0);
    if row.bench == "path" {
        text += &format!(" ({:.2}", row.ratio_to_xdp_tx);
        if let Some(ratio) = row.ratio_to_nftables {
            text += &format!(", {ratio:.2}");
        }
        text += ")";
    }
    text
}

/// The processor, the cores and the kernel.
fn machine() -> Result<String> {
    let path = "/proc/cpuinfo";
    let text = std::fs::read_to_string(path).context(path)?;
    let name = text.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(':'));
    let name = name.map_or("an unnamed processor", |(_, name)| name.trim());
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = nix::sys::utsname::uname()?;
    let release = kernel.release().to_string_lossy();
    // A vendor's suffix says nothing to others.
    let version = release.split('-').next().unwrap_or_default();
    Ok(format!(
        "{name}, {cores} of its cores, one used, Linux {version}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tables_go_between_the_markers() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let rows =
            [("xdp_tx", 1), ("xdp_tx", 1024), ("nftables", 1)].map(|it| Row::example(it.0, it.1));
        let new = with(&page, &rows, "cmd").unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("\nz\n"), "{new}");
        assert!(new.contains("| xdp_tx | 100 ± 1 (1.25, 0.20) | 100 ± 1 (1.25, 0.20) |\n"));
        assert!(
            new.contains("| nftables | 100 ± 1 (1.25, 0.20) | |\n"),
            "{new}"
        );
        assert!(!new.contains("old"));
        assert!(with("nothing", &rows, "cmd").is_err());
    }
}
