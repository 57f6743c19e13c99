//! The kernels that are tested, and which package of Debian is the newest of each.

use anyhow::{Context, Result};

/// Where Debian's mirrors are.
const MIRROR: &str = "http://deb.debian.org";

/// The suites that have the kernels, as lines of a list of sources.
pub(in crate::test) const SUITES: [(&str, &str); 4] = [
    ("debian-security", "bookworm-security"),
    ("debian", "bookworm-backports"),
    ("debian", "trixie-backports"),
    ("debian", "sid"),
];

/// Which packages' names are asked for.
pub(in crate::test) const PACKAGES: &str = "^linux-(image|base|binary|modules)-[0-9]";

/// A series of kernels, of which the newest release is tested: point releases come and
/// go on the mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::test) struct Series {
    /// As people call it, and as the record of the verifier does.
    pub(in crate::test) name: &'static str,
    /// The numbers that its versions begin with; none: whatever is newest.
    prefix: &'static [u32],
}

/// The oldest kernel that Naru supports, Debian 13's, and the newest that Debian has.
pub(in crate::test) const ALL: [Series; 3] = [
    Series {
        name: "6.1",
        prefix: &[6, 1],
    },
    Series {
        name: "6.12",
        prefix: &[6, 12],
    },
    Series {
        name: "newest",
        prefix: &[],
    },
];

/// The one that Debian 12 itself has.
pub(in crate::test) const BOOKWORM: Series = ALL[0];

/// The list of sources for apt.
pub(in crate::test) fn sources() -> String {
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    SUITES
        .iter()
        .map(|(archive, suite)| format!("deb [signed-by={key}] {MIRROR}/{archive} {suite} main\n"))
        .collect()
}

/// The packages out of these that a kernel's package consists of: itself, and since
/// Debian 14 others that have what used to be in it.
pub(in crate::test) fn parts(package: &str, packages: &str) -> Vec<String> {
    let version = package.strip_prefix("linux-image-").unwrap_or_default();
    ["image", "base", "binary", "modules"]
        .map(|part| format!("linux-{part}-{version}"))
        .into_iter()
        .filter(|part| packages.lines().any(|known| known == part))
        .collect()
}

/// The series to test: all, or those that the variable `NARU_KERNELS` names.
pub(in crate::test) fn chosen(variable: Option<&str>) -> Result<Vec<Series>> {
    let Some(names) = variable else {
        return Ok(ALL.to_vec());
    };
    names
        .split(',')
        .map(|name| {
            let found = ALL.into_iter().find(|series| series.name == name.trim());
            found.with_context(|| {
                let known = ALL.map(|series| series.name).join(",");
                format!("NARU_KERNELS: no series `{name}`; choose of {known}")
            })
        })
        .collect()
}

// === impl Series ===

impl Series {
    /// Whether a version belongs to it: to the newest, what belongs to no other.
    fn has(self, version: &[u32]) -> bool {
        if self.prefix.is_empty() {
            let mut others = ALL.iter().filter(|series| !series.prefix.is_empty());
            others.all(|series| !version.starts_with(series.prefix))
        } else {
            version.starts_with(self.prefix)
        }
    }

    /// The newest of these packages that belongs to this series.
    pub(in crate::test) fn newest<'a>(
        self,
        packages: impl Iterator<Item = &'a str>,
    ) -> Option<&'a str> {
        packages
            .filter_map(|package| Some((version(package)?, package)))
            .filter(|(version, _)| self.has(version))
            .max()
            .map(|(_, package)| package)
    }
}

/// The numbers of a kernel's version, for packages of the ordinary kernel alone: not the
/// one for clouds, nor the one for real time, nor one that only depends on the newest.
fn version(package: &str) -> Option<Vec<u32>> {
    let version = package
        .strip_prefix("linux-image-")?
        .strip_suffix("-amd64")?;
    let numbers: Option<Vec<u32>> = version
        .replace("+deb", ".")
        .split(['.', '-'])
        .map(|part| part.parse().ok())
        .collect();
    numbers.filter(|numbers| numbers.len() >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: [&str; 9] = [
        "linux-image-amd64",
        "linux-image-6.12-amd64",
        "linux-image-6.1.0-9-amd64",
        "linux-image-6.1.0-56-amd64",
        "linux-image-6.1.0-57-rt-amd64",
        "linux-image-6.1.0-57-amd64-unsigned",
        "linux-image-6.12.90+deb12.1-amd64",
        "linux-image-6.12.117+deb12-amd64",
        "linux-image-7.2.13+deb14-amd64",
    ];

    #[test]
    fn the_newest_release_of_a_series_is_found_by_number() {
        let newest = |series: Series| series.newest(PACKAGES.into_iter());
        let found = ALL.map(newest);
        assert_eq!(
            found,
            [
                Some("linux-image-6.1.0-56-amd64"),
                Some("linux-image-6.12.117+deb12-amd64"),
                Some("linux-image-7.2.13+deb14-amd64"),
            ]
        );
    }

    #[test]
    fn a_kernel_may_come_in_parts() {
        let known = "linux-image-6.1.0-9-amd64\nlinux-image-7.2.13+deb14-amd64\n\
                     linux-modules-7.2.13+deb14-amd64\n";
        let one = "linux-image-6.1.0-9-amd64";
        assert_eq!(parts(one, known), [one]);
        assert_eq!(
            parts("linux-image-7.2.13+deb14-amd64", known),
            [
                "linux-image-7.2.13+deb14-amd64",
                "linux-modules-7.2.13+deb14-amd64"
            ]
        );
    }

    #[test]
    fn series_are_chosen_by_name() {
        assert_eq!(chosen(None).unwrap(), ALL);
        assert_eq!(chosen(Some("6.12, 6.1")).unwrap(), [ALL[1], ALL[0]]);
        assert!(chosen(Some("6.13")).is_err());
    }

    #[test]
    fn a_series_is_not_another_that_begins_alike() {
        let only = ["linux-image-6.12.90+deb12.1-amd64"];
        assert_eq!(ALL[0].newest(only.into_iter()), None);
        // Nor is it the newest one, which is to be another kernel.
        assert_eq!(ALL[2].newest(only.into_iter()), None);
    }
}
