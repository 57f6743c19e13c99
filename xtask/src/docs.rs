//! Pages of documentation that are made out of the code.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use lb_common::{Verdict, verdict::Fate};

use crate::host;

pub(crate) const HELP: &str = "\
Writes docs/verdicts.md, which lists every verdict with what it means and what to do, out
of lb-common/src/verdict.rs, and what vagrant/ reads of the testbed, out of
lab/src/topology.rs. `cargo xtask test lint unit` fails where they are not current.";

const INTRO: &str = "\
# Verdicts

<!-- Made by `cargo xtask docs` out of lb-common/src/verdict.rs: change it there. -->

Every packet that Naru's kernel programs see ends in one of these. Each has a counter for
every place where packets meet the programs (`xdp`, `tc-ingress`, `tc-egress`):

```
naru status                 the counters since the programs were first loaded
naru status -o json         the same for scripts, below `verdicts`
naru top --view verdicts    how many there are in a second, the most frequent first
naru explain CLIENT VIP     the verdict on one packet, without sending it
```

A restart of the agent leaves the counters as they are; `naru detach` ends them.
";

/// The groups, what matters most to an operator first.
const GROUPS: [(Fate, &str, &str); 4] = [
    (
        Fate::Drop,
        "Dropped",
        "The packet is gone without an answer. A count that grows wants to be looked at.",
    ),
    (
        Fate::Refuse,
        "Refused",
        "The sender is told at once, by TCP RST or ICMP, or was asking: ARP, neighbour discovery.",
    ),
    (Fate::Forward, "Forwarded", "What a balancer is there for."),
    (
        Fate::Pass,
        "Left to the stack",
        "The host's kernel goes on with the packet as if Naru were not there.",
    ),
];

/// `cargo xtask docs`: writes the pages.
pub(crate) fn run() -> Result<ExitCode> {
    let path = path();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(&path, verdicts()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    // The lab's data is not linked to: it would make everybody wait for the lab to build.
    let vagrant = host::root().join("vagrant");
    let mut lab = host::cargo("run");
    lab.args(["--quiet", "--release", "-p", "naru-lab", "--", "testbed"]);
    host::status(lab.arg(&vagrant))?;
    println!("written: {}", vagrant.join("topology.json").display());
    Ok(ExitCode::SUCCESS)
}

/// Fails where a page is not what the code says.
pub(crate) fn check() -> Result<()> {
    let path = path();
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found != verdicts() {
        bail!(
            "{} is not what the code says; run `cargo xtask docs` and commit it",
            path.display()
        );
    }
    Ok(())
}

fn path() -> PathBuf {
    host::root().join("docs/verdicts.md")
}

fn verdicts() -> String {
    let mut page = INTRO.to_owned();
    for (fate, title, text) in GROUPS {
        page += &format!(
            "\n## {title}\n\n{text}\n\n| verdict | meaning, and what to do |\n|---|---|\n"
        );
        for verdict in Verdict::ALL.iter().filter(|it| it.fate() == fate) {
            page += &format!("| `{verdict}` | {} |\n", verdict.text().replace('|', "\\|"));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_one_line_with_its_text() {
        let page = verdicts();
        for verdict in Verdict::ALL {
            let start = format!("| `{verdict}` | {}", verdict.text());
            let lines = page.lines().filter(|line| line.starts_with(&start));
            assert_eq!(lines.count(), 1, "{verdict}");
        }
    }
}
