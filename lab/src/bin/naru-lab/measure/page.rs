//! The page that benchmarks write, each between markers of its own.

use anyhow::Context;

/// The page before any benchmark has written to it.
pub(crate) const HEAD: &str = "# What Naru costs

Every number here is written by the command that stands below it, on the machine that it
names. Ratios are between candidates of the same run, which take turns.
";

/// The page with another text between the markers of this name, at its end where it has none.
pub(crate) fn replace(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let Some((head, rest)) = page.split_once(&begin) else {
        return Ok(format!("{page}\n{begin}\n{text}{end}\n"));
    };
    let (_, tail) = rest
        .split_once(&end)
        .with_context(|| format!("the page has `{begin}` and no `{end}`"))?;
    Ok(format!("{head}{begin}\n{text}{end}{tail}"))
}

/// What the numbers were measured on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(String::new(), |(_, model)| format!(" ({})", model.trim()));
    format!("on {cores} cores{model}, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = "a\n<!-- x -->\nold\n<!-- /x -->\nz\n";
        let new = replace(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- /x -->\nz\n");
        assert_eq!(replace(&new, "x", "new\n").unwrap(), new);
        replace("<!-- x -->\n", "x", "new\n").unwrap_err();
    }

    #[test]
    fn a_page_without_markers_gets_them_at_its_end() {
        let new = replace("a\n", "x", "new\n").unwrap();
        assert_eq!(new, "a\n\n<!-- x -->\nnew\n<!-- /x -->\n");
    }
}
