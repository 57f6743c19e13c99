//! What both made of a frame, side by side.

use crate::{
    reference::{Input, Outcome},
    subject::Made,
};

/// In what action or bytes differ.
pub(crate) fn disagreement(outcome: &Outcome, made: &Made) -> Option<String> {
    let expected = &outcome.out;
    if outcome.act != made.act {
        let verdict = outcome.verdict;
        return Some(format!("{verdict}: {:?}, not {:?}", outcome.act, made.act));
    }
    let mut seen = made.bytes.clone();
    for &at in &expected.loose {
        // Both are zero in one's complement.
        if seen.get(at..at + 2) == Some(&[0xff; 2][..]) && expected.bytes[at..at + 2] == [0; 2] {
            seen[at..at + 2].fill(0);
        }
    }
    (seen != expected.bytes).then(|| format!("{}: other bytes", outcome.verdict))
}

/// Both outcomes, and where their bytes differ.
pub(crate) fn show(input: &Input<'_>, outcome: &Outcome, made: &Made, counted: &str) -> String {
    let expected = &outcome.out.bytes;
    let mut text = format!(
        "  {} at {}, {} bytes\n  reference {} {:?}, {} bytes\n  program   {counted}{:?}, {} bytes\n",
        input.hook.name(),
        input.device.name,
        input.frame.len(),
        outcome.verdict,
        outcome.act,
        expected.len(),
        made.act,
        made.bytes.len(),
    );
    let hex = |byte: Option<&u8>| byte.map_or("--".to_owned(), |byte| format!("{byte:02x}"));
    let longest = expected.len().max(made.bytes.len());
    for at in (0..longest)
        .filter(|&at| expected.get(at) != made.bytes.get(at))
        .take(24)
    {
        text += &format!(
            "  byte {at:4}: in {} reference {} program {}\n",
            hex(input.frame.get(at)),
            hex(expected.get(at)),
            hex(made.bytes.get(at)),
        );
    }
    text
}
