//! One failover as the client saw it: requests in slices of 10 ms, answered and lost.

use std::time::Duration;

use anyhow::anyhow;
use naru_lab::{Probe, Requests, Seen};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 400);
const SLICE: Duration = Duration::from_millis(10);
/// What is shown: before the fault, and after it.
const SHOWN: (i64, i64) = (-500, 2000);

const ANSWERED: RGBColor = RGBColor(0x4c, 0x9a, 0x6a);
const LOST: RGBColor = RGBColor(0xd0, 0x4a, 0x3c);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// The picture, as SVG.
pub(super) fn draw(seen: &Seen) -> anyhow::Result<String> {
    let mut svg = String::new();
    paint(seen, &mut svg).map_err(|error| anyhow!("drawing the failover: {error}"))?;
    Ok(svg + "\n")
}

fn paint(seen: &Seen, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let slices = seen.requests.histogram(SLICE);
    let most = slices.iter().map(|(a, b)| a + b).max().unwrap_or(1);
    // Room for the legend above the bars.
    let top = most + most / 3 + 2;
    let fault = seen.fault.as_millis() as i64;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    // The title is about what is shown.
    let at = |it: &Probe| it.sent.as_millis() as i64 - fault;
    let shown = seen.requests.0.iter();
    let shown = shown.filter(|it| (SHOWN.0..SHOWN.1).contains(&at(it)));
    let shown = Requests(shown.cloned().collect());
    let gap = shown.longest_gap(seen.fault);
    let title = format!(
        "The owner of the address is switched off: {} ms between answers, {} of {} requests lost",
        gap.map_or("∞".to_owned(), |gap| gap.as_millis().to_string()),
        shown.lost(),
        shown.0.len(),
    );
    let text = ("sans-serif", 15).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 17).into_font().color(&INK))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(SHOWN.0..SHOWN.1, 0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xe4, 0xe4, 0xe4))
        .axis_style(INK)
        .label_style(text.clone())
        .x_desc("milliseconds since the power went")
        .y_desc("requests sent per 10 ms")
        .draw()?;
    let width = SLICE.as_millis() as i64;
    let bars = |from: fn(&(u32, u32)) -> (u32, u32), colour: RGBColor| {
        let slices = slices.iter().enumerate();
        let shown = slices.filter_map(move |(index, slice)| {
            let left = index as i64 * width - fault;
            let (low, high) = from(slice);
            let seen = left >= SHOWN.0 && left + width <= SHOWN.1 && high > low;
            let corners = [(left, low), (left + width, high)];
            seen.then(|| Rectangle::new(corners, colour.filled()))
        });
        shown.collect::<Vec<_>>()
    };
    let square = |colour: RGBColor| {
        move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 6)], colour.filled())
    };
    chart
        .draw_series(bars(|(answered, _)| (0, *answered), ANSWERED))?
        .label("answered")
        .legend(square(ANSWERED));
    chart
        .draw_series(bars(|(answered, lost)| (*answered, answered + lost), LOST))?
        .label("lost")
        .legend(square(LOST));
    chart.draw_series([PathElement::new([(0, 0), (0, top)], INK.stroke_width(2))])?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(0xc8, 0xc8, 0xc8))
        .label_font(text)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use naru_lab::Ownership;

    #[test]
    fn lost_requests_show_in_their_colour_only_where_there_are_some() {
        let ms = Duration::from_millis;
        let one = |index: u64, lost: bool| Probe {
            sent: ms(index),
            answer: (!lost).then(|| (ms(index + 1), "pod".into())),
        };
        let seen = |lost: std::ops::Range<u64>| Seen {
            fault: ms(1000),
            period: ms(1),
            requests: Requests((0..3000).map(|i| one(i, lost.contains(&i))).collect()),
            near: Ownership::default(),
            far: None,
            connections: Vec::new(),
            calm: true,
        };
        let red = format!("#{:02X}{:02X}{:02X}", LOST.0, LOST.1, LOST.2);
        let count = |svg: &str| svg.matches(&red).count();
        let (none, some) = (draw(&seen(0..0)).unwrap(), draw(&seen(1000..1600)).unwrap());
        // One is the legend's.
        assert_eq!((count(&none), count(&some)), (1, 61), "{some}");
        assert!(
            some.contains("601 ms between answers, 600 of 2500"),
            "{some}"
        );
    }
}
