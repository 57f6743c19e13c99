//! Health checks as people write them: `http:/healthz interval=2s timeout=1s rise=2 fall=3`.

use std::time::Duration;

use lb_common::Protocol;

use super::rules::{self, Objection};
use crate::desired::{HealthCheck, HealthProbe};

const EXAMPLE: &str = "write it as http:/healthz interval=2s timeout=1s rise=2 fall=3 port=8080";

/// The most checks in a row that one may ask for.
const MAX_COUNT: u32 = 100;

/// Reads a check in one line: what is asked, then options in any order.
pub(crate) fn read(text: &str) -> Result<HealthCheck, Objection> {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return Err(Objection::new("it is empty", EXAMPLE));
    };
    let mut check = HealthCheck {
        probe: probe(first)?,
        ..HealthCheck::default()
    };
    let mut seen = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(Objection::new(
                format!("`{word}` is not OPTION=VALUE"),
                EXAMPLE,
            ));
        };
        if seen.contains(&key) {
            return Err(Objection::new(
                format!("{key} is said twice"),
                "say it once",
            ));
        }
        seen.push(key);
        set(&mut check, key, value)?;
    }
    Ok(check)
}

/// Reads what is asked: `tcp`, or `http:/path`.
pub(crate) fn probe(text: &str) -> Result<HealthProbe, Objection> {
    if text == "tcp" {
        return Ok(HealthProbe::Tcp);
    }
    let refused = |what: String| Objection::new(what, "write tcp, or http:/path");
    let Some(path) = text.strip_prefix("http:") else {
        return Err(refused(format!("`{text}` is not a kind of health check")));
    };
    // What is no part of a request line: `http://host/path` among others.
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || path.starts_with("//") || path.contains('#') || !plain {
        return Err(refused(format!("`{path}` is not a path on the endpoint")));
    }
    Ok(HealthProbe::Http {
        path: path.to_owned(),
    })
}

/// Takes over one option.
pub(crate) fn set(check: &mut HealthCheck, key: &str, value: &str) -> Result<(), Objection> {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    match key {
        "interval" => check.interval = span(value, second / 10, 60 * minute)?,
        "timeout" => check.timeout = span(value, second / 100, minute)?,
        "rise" => check.rise = count(value)?,
        "fall" => check.fall = count(value)?,
        "port" => check.port = Some(port(value)?),
        other => {
            return Err(Objection::new(
                format!("`{other}` is not an option of a health check"),
                "use interval, timeout, rise, fall or port",
            ));
        }
    }
    Ok(())
}

/// Refuses a check that a service of this protocol cannot have.
pub(crate) fn fits(check: &HealthCheck, protocol: Protocol) -> Result<(), Objection> {
    if protocol == Protocol::Tcp || check.port.is_some() {
        return Ok(());
    }
    Err(Objection::new(
        format!("a health check of {protocol} endpoints has to know a TCP port of theirs"),
        "add port=NUMBER",
    ))
}

fn port(text: &str) -> Result<u16, Objection> {
    let number = text.parse().unwrap_or(0);
    rules::port(number)
        .map_err(|it| Objection::new(format!("port `{text}` does not exist"), it.remedy))
}

fn count(text: &str) -> Result<u32, Objection> {
    match text.parse() {
        Ok(count @ 1..=MAX_COUNT) => Ok(count),
        _ => Err(Objection::new(
            format!("`{text}` is not a number of checks"),
            format!("use a number from 1 to {MAX_COUNT}"),
        )),
    }
}

/// Reads `500ms`, `2s` or `1m`.
fn span(text: &str, least: Duration, most: Duration) -> Result<Duration, Objection> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|span| (least..=most).contains(span))
        .ok_or_else(|| {
            Objection::new(
                format!("`{text}` is not a span of time that can be used here"),
                format!("write 500ms, 2s or 1m; from {least:?} to {most:?}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_check_says_what_differs_from_the_defaults() {
        assert_eq!(read("tcp"), Ok(HealthCheck::default()));
        let check = read(" http:/up?full=1  fall=1 interval=500ms port=8080 timeout=2s rise=10 ");
        assert_eq!(
            check,
            Ok(HealthCheck {
                probe: HealthProbe::Http {
                    path: "/up?full=1".to_owned()
                },
                port: Some(8080),
                interval: Duration::from_millis(500),
                timeout: Duration::from_secs(2),
                rise: 10,
                fall: 1,
            })
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_remedy() {
        let says = |text: &str| read(text).expect_err("refused").to_string();
        for (text, expected) in [
            ("", "it is empty; write it as http:/healthz"),
            (
                "ping",
                "`ping` is not a kind of health check; write tcp, or http:/path",
            ),
            ("http", "`http` is not a kind of health check"),
            ("http://web/up", "`//web/up` is not a path on the endpoint"),
            ("http:up", "`up` is not a path on the endpoint"),
            ("http:/\u{e9}", "is not a path on the endpoint"),
            ("tcp 2s", "`2s` is not OPTION=VALUE"),
            (
                "tcp every=2s",
                "`every` is not an option of a health check; use interval",
            ),
            ("tcp rise=1 rise=2", "rise is said twice"),
            (
                "tcp fall=0",
                "`0` is not a number of checks; use a number from 1 to 100",
            ),
            ("tcp port=70000", "port `70000` does not exist"),
            (
                "tcp interval=2",
                "`2` is not a span of time that can be used here; write 500ms",
            ),
            ("tcp interval=1ms", "from 100ms to 3600s"),
            ("tcp timeout=18446744073709551615m", "is not a span of time"),
        ] {
            assert!(says(text).contains(expected), "{text:?}: {}", says(text));
        }
    }

    #[test]
    fn datagrams_cannot_be_asked_whether_they_live() {
        let check = read("tcp").expect("valid");
        assert!(fits(&check, Protocol::Tcp).is_ok());
        assert!(fits(&check, Protocol::Udp).is_err());
        assert!(fits(&read("tcp port=80").expect("valid"), Protocol::Udp).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(tcp|http:|/|interval|rise|=|[ a-z0-9ms\u{e9}])*") {
            let _ = read(&text);
        }
    }
}
