//! Writing metrics by their rows.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Labels of a row, by name.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a number of a metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows; its name ends in `_total`, which is added.
    Counter,
    /// It is what it is now. Counters whose names others have chosen, without `_total`, are
    /// written so as well.
    Gauge,
}

/// Writes all rows of a metric.
pub(super) fn metric(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let as_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, as_type)?;
    for (labels, value) in rows {
        let row = metric.encode_family(&labels)?;
        match kind {
            Kind::Counter => ConstCounter::new(value).encode(row)?,
            Kind::Gauge => {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(row)?;
            }
        }
    }
    Ok(())
}
