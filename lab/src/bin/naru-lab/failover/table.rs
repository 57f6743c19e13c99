//! The numbers of many runs, for people.

use std::fmt::Write;

use anyhow::Context;
use naru_lab::{Fate, Outcome};

use super::Run;

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

const HEAD: &str = "\
| what happens to the owner | nodes | runs | longest gap, ms | requests lost | \
last loss after, ms | without an owner, ms | with two, ms | last two after, ms | changes of owner | \
connections broken |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// One run in one line.
pub(super) fn line(outcome: &Outcome) -> String {
    let gap = outcome.gap.map_or("no answer any more".to_owned(), |gap| {
        format!("gap {gap} ms")
    });
    let mut line = format!(
        "{gap}, lost {} of {}, unowned {} ms, two owners {} ms, connections {}",
        outcome.lost,
        outcome.requests,
        outcome.unowned,
        outcome.several,
        broken([outcome].into_iter())
    );
    if !outcome.calm {
        line.push_str(", NOT CALM AGAIN");
    }
    line
}

/// A table with a row for each fault and each end of one: median, and worst.
pub(super) fn markdown(runs: &[Run]) -> String {
    let mut text = HEAD.to_owned();
    let mut keys: Vec<(&str, &str, u8)> = Vec::new();
    for run in runs {
        let key = (run.fault, run.what, run.nodes);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    for (fault, what, nodes) in keys {
        let same = |run: &&Run| (run.fault, run.what, run.nodes) == (fault, what, nodes);
        let all: Vec<&Outcome> = runs.iter().filter(same).map(|it| &it.outcome).collect();
        let of = |field: &dyn Fn(&Outcome) -> u64| spread(all.iter().map(|it| field(it)).collect());
        let gap = match all.iter().all(|it| it.gap.is_some()) {
            true => of(&|it| it.gap.unwrap_or_default()),
            false => "for ever".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {what} | {nodes} | {} | {gap} | {} | {} | {} | {} | {} | {} | {} |",
            all.len(),
            of(&|it| it.lost as u64),
            of(&|it| it.lossy),
            of(&|it| it.unowned),
            of(&|it| it.several),
            of(&|it| it.single_after),
            of(&|it| it.changes as u64),
            broken(all.iter().copied()),
        );
    }
    text
}

/// `median (worst)`, or the one number that all are.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    let (median, worst) = (numbers.get(numbers.len() / 2), numbers.last());
    match (median, worst, numbers.first()) {
        (Some(_), Some(worst), Some(least)) if worst == least => worst.to_string(),
        (Some(median), Some(worst), _) => format!("{median} ({worst})"),
        _ => "-".to_owned(),
    }
}

/// How many of all, and why.
fn broken<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> String {
    let count = |fate: Fate| -> usize {
        let of = |it: &'a Outcome| it.connections.get(&fate).copied();
        outcomes.clone().filter_map(of).sum()
    };
    let causes = [
        (Fate::PodGone, "pod gone"),
        (Fate::SlotChanged, "slot changed"),
        (Fate::Unexplained, "unexplained"),
    ];
    let total: usize =
        count(Fate::Alive) + causes.iter().map(|(fate, _)| count(*fate)).sum::<usize>();
    let causes = causes.map(|(fate, name)| (count(fate), name));
    let told = causes.iter().filter(|(number, _)| *number > 0);
    let told: Vec<_> = told
        .map(|(number, name)| format!("{number} {name}"))
        .collect();
    match told.is_empty() {
        true => format!("0 of {total}"),
        false => format!("{} of {total}", told.join(", ")),
    }
}

/// The page with another table between its markers.
pub(super) fn into_page(page: &str, table: &str, command: &str) -> anyhow::Result<String> {
    let markers = || format!("the page has no `{BEGIN}` … `{END}`");
    let (head, rest) = page.split_once(BEGIN).with_context(markers)?;
    let (_, tail) = rest.split_once(END).with_context(markers)?;
    let machine = machine();
    Ok(format!(
        "{head}{BEGIN}\n{table}\nBy `{command}`, {machine}.\n{END}{tail}"
    ))
}

/// What the numbers were measured on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("on {cores} cores, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(run: u32, gap: Option<u64>, broken: usize) -> Run {
        Run {
            fault: "node-off",
            what: "node switched off",
            nodes: 3,
            run,
            outcome: Outcome {
                requests: 500,
                lost: 60,
                gap,
                lossy: 700,
                unowned: 600,
                several: 0,
                single_after: 0,
                changes: 1,
                connections: [(Fate::Alive, 30 - broken), (Fate::PodGone, broken)].into(),
                calm: true,
            },
        }
    }

    #[test]
    fn a_row_has_the_median_and_the_worst_of_all_runs() {
        let runs = [
            run(1, Some(700), 4),
            run(2, Some(900), 6),
            run(3, Some(650), 0),
        ];
        let row = markdown(&runs).lines().nth(2).unwrap().to_owned();
        let expected = "| node switched off | 3 | 3 | 700 (900) | 60 | 700 | 600 | 0 | 0 | 1 | 10 pod gone of 90 |";
        assert_eq!(row, expected);
    }

    #[test]
    fn a_run_without_an_end_is_no_small_number() {
        let runs = [run(1, Some(700), 0), run(2, None, 0)];
        assert!(markdown(&runs).contains("| for ever |"));
        assert!(line(&runs[1].outcome).starts_with("no answer any more"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let new = into_page(&page, "new\n", "cmd").unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("\nz\n"), "{new}");
        assert!(new.contains("new\n") && !new.contains("old"), "{new}");
        let again = into_page(&new, "new\n", "cmd").unwrap();
        assert_eq!(again, new);
        into_page("nothing", "new", "cmd").unwrap_err();
    }
}
