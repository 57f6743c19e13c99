//! Candidates as bars that lie on their sides, each with a whisker.

use anyhow::anyhow;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const WIDTH: u32 = 960;
/// Of one bar and the room around it, in pixels.
const ROW: u32 = 26;

const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const COLOURS: [RGBColor; 3] = [
    RGBColor(0x9a, 0xa5, 0xb1),
    RGBColor(0xd9, 0x9a, 0x4a),
    RGBColor(0x4c, 0x9a, 0x6a),
];

/// Whose bar it is, which gives the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// What is compared with.
    Base,
    /// Another balancer's.
    Other,
    /// Naru's.
    Naru,
}

/// A bar from 0, with a whisker from `low` to `high`, all in the chart's unit.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) whose: Whose,
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A picture of bars.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What the axis counts, with its unit.
    pub(crate) axis: &'a str,
    /// Where a line is drawn across all bars.
    pub(crate) bound: Option<f64>,
    pub(crate) bars: &'a [Bar],
    /// Whether each step of the axis is ten times the one before.
    pub(crate) logarithmic: bool,
}

// === impl Chart ===

impl Chart<'_> {
    /// The picture, as SVG.
    pub(crate) fn draw(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        let ends = self.bars.iter().flat_map(|bar| [bar.value, bar.high]);
        let most = ends.chain(self.bound).filter(|it| it.is_finite());
        let most = most.fold(f64::MIN_POSITIVE, f64::max) * 1.08;
        let painted = if self.logarithmic {
            let values = self.bars.iter().map(|bar| bar.value);
            let least = values.filter(|it| *it > 0.0).fold(most, f64::min);
            let least = 10_f64.powf(least.log10().floor());
            self.paint((least..most).log_scale(), least, &mut svg)
        } else {
            self.paint(0.0..most, 0.0, &mut svg)
        };
        painted.map_err(|error| anyhow!("drawing {}: {error}", self.title))?;
        Ok(svg + "\n")
    }

    fn paint<X>(
        &self,
        axis: X,
        least: f64,
        svg: &mut String,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let count = self.bars.len() as i32;
        let size = (WIDTH, 110 + ROW * self.bars.len() as u32);
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let text = ("sans-serif", 14).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 17).into_font().color(&INK))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(42)
            .y_label_area_size(230)
            .build_cartesian_2d(axis, (0..count - 1).into_segmented())?;
        let label = |position: &SegmentValue<i32>| match position {
            // The first bar is the uppermost.
            SegmentValue::CenterOf(at) => {
                let bar = self.bars.get((count - 1 - at).max(0) as usize);
                bar.map_or(String::new(), |bar| bar.label.clone())
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(0xe4, 0xe4, 0xe4))
            .axis_style(INK)
            .label_style(text)
            .y_labels(self.bars.len())
            .y_label_formatter(&label)
            .x_desc(self.axis)
            .draw()?;
        let at = |index: usize| count - 1 - index as i32;
        chart.draw_series(self.bars.iter().enumerate().map(|(index, bar)| {
            let (low, high) = (at(index), at(index) + 1);
            let corners = [
                (least, SegmentValue::Exact(low)),
                (bar.value, SegmentValue::Exact(high)),
            ];
            let mut shape = Rectangle::new(corners, COLOURS[bar.whose as usize].filled());
            shape.set_margin(5, 5, 0, 0);
            shape
        }))?;
        let whiskers = self.bars.iter().enumerate();
        let whiskers = whiskers.filter(|(_, bar)| bar.low.is_finite() && bar.high.is_finite());
        chart.draw_series(whiskers.map(|(index, bar)| {
            let middle = SegmentValue::CenterOf(at(index));
            let line = [(bar.low, middle.clone()), (bar.high, middle)];
            PathElement::new(line, INK.stroke_width(2))
        }))?;
        if let Some(bound) = self.bound {
            let line = [
                (bound, SegmentValue::Exact(0)),
                (bound, SegmentValue::Exact(count)),
            ];
            chart.draw_series([PathElement::new(line, RED.stroke_width(1))])?;
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_bar_has_its_label_and_its_colour() {
        let bar = |label: &str, whose| Bar {
            label: label.to_owned(),
            whose,
            value: 1.0,
            low: 0.9,
            high: f64::INFINITY,
        };
        let bars = [bar("none", Whose::Base), bar("naru", Whose::Naru)];
        let chart = Chart {
            title: "rates",
            axis: "ratio",
            bound: Some(0.95),
            bars: &bars,
            logarithmic: false,
        };
        let svg = chart.draw().unwrap();
        for label in ["none", "naru"] {
            let told = svg.lines().filter(|line| *line == label);
            assert_eq!(told.count(), 1, "{svg}");
        }
        let logarithmic = Chart {
            logarithmic: true,
            ..chart
        };
        assert!(logarithmic.draw().unwrap().contains("naru"));
        for whose in [Whose::Base, Whose::Naru] {
            let RGBColor(r, g, b) = COLOURS[whose as usize];
            assert!(svg.contains(&format!("#{r:02X}{g:02X}{b:02X}")), "{svg}");
        }
    }
}
