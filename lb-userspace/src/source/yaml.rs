//! YAML text → values, with errors that know their line in the file.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_saphyr::{Localizer, Location, SnippetMode, UserMessageFormatter};

/// Why a text could not be read.
#[derive(Debug)]
pub(crate) struct YamlError {
    /// Line of the file, from 1, where the parser knows it.
    pub(crate) line: Option<u64>,
    pub(crate) what: String,
}

/// Reads one document that begins on `first_line` of its file.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, first_line: u64) -> Result<T, YamlError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let formatter = UserMessageFormatter.with_localizer(&LineStandsInFront);
        let what = error.render_with_options(serde_saphyr::render_options! {
            formatter: &formatter,
            snippets: SnippetMode::Off,
        });
        let line = error
            .location()
            .map(|location| location.line())
            .filter(|&line| line > 0)
            .map(|line| line + first_line - 1);
        YamlError { line, what }
    })
}

/// Leaves positions out of the message: they are counted from the document's start.
struct LineStandsInFront;

impl Localizer for LineStandsInFront {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }

    fn alias_used_at(&self, _: Location) -> String {
        String::new()
    }

    fn alias_defined_at(&self, _: Location) -> String {
        String::new()
    }
}
