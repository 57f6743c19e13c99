//! Nanoseconds a packet over the number of flows, drawn.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::{kind::Kind, row::Row};

const SIZE: (u32, u32) = (960, 480);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const PALE: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// Of candidates, in the order of [`Kind::all`].
const COLOURS: [RGBColor; 12] = [
    RGBColor(0x88, 0x88, 0x88),
    RGBColor(0xbb, 0xbb, 0xbb),
    RGBColor(0x33, 0x33, 0x33),
    RGBColor(0xd0, 0x4a, 0x3c),
    RGBColor(0xe8, 0x9a, 0x3c),
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0x2a, 0x9d, 0x8f),
    RGBColor(0x6a, 0x4c, 0x93),
    RGBColor(0x7f, 0xb3, 0xd5),
    RGBColor(0x8f, 0xd3, 0xc7),
    RGBColor(0xb3, 0x9d, 0xcb),
    RGBColor(0x5a, 0x8f, 0x29),
];

/// All pictures, by file name.
pub(crate) fn all(rows: &[Row]) -> Result<Vec<(String, String)>> {
    let mut groups: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let (bench, direction) = (row.hook.unwrap_or(row.bench), row.direction);
        let name = format!(
            "performance-{bench}-{direction}-v{}-{}.svg",
            row.family, row.size
        );
        groups.entry(name).or_default().push(row);
    }
    let drawn = groups
        .into_iter()
        .map(|(name, rows)| Ok((name, draw(&rows)?)));
    drawn.collect()
}

fn draw(rows: &[&Row]) -> Result<String> {
    let mut svg = String::new();
    paint(rows, &mut svg).map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(svg + "\n")
}

fn paint(rows: &[&Row], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let most = rows.iter().map(|row| row.flows).max().unwrap_or(1).max(2);
    let top = rows.iter().map(|row| row.ns_per_packet).fold(1.0, f64::max) * 1.1;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (picture, legend) = area.split_horizontally(720);
    let what = match first.hook {
        None => "The whole path".to_owned(),
        Some(hook) => format!("The program alone at {hook}, over a stub"),
    };
    let title = format!(
        "{what}, IPv{}, {}, {} bytes",
        first.family, first.direction, first.size
    );
    let text = ("sans-serif", 15).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&picture)
        .caption(title, ("sans-serif", 17).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..f64::from(most)).log_scale().base(2.0), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(PALE)
        .axis_style(INK)
        .label_style(text.clone())
        .x_label_formatter(&|flows| short(*flows as u32))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .x_desc("flows")
        .y_desc("nanoseconds a packet, one core")
        .draw()?;
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for row in rows {
        let point = (f64::from(row.flows), row.ns_per_packet);
        match lines.iter_mut().find(|(name, _)| *name == row.candidate) {
            Some((_, points)) => points.push(point),
            None => lines.push((&row.candidate, vec![point])),
        }
    }
    let names: Vec<String> = Kind::all().into_iter().map(Kind::name).collect();
    for (index, (name, points)) in lines.iter().enumerate() {
        let place = names.iter().position(|it| it == name).unwrap_or_default();
        let colour = COLOURS.get(place).unwrap_or(&INK);
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            colour.stroke_width(2),
        ))?;
        let dots = points
            .iter()
            .map(|&point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots)?;
        let y = 52 + 22 * index as i32;
        legend.draw(&Rectangle::new([(4, y), (18, y + 10)], colour.filled()))?;
        legend.draw(&Text::new((*name).to_owned(), (26, y - 3), text.clone()))?;
    }
    area.present()?;
    Ok(())
}

/// A number of flows, as people say it.
pub(crate) fn short(flows: u32) -> String {
    match flows {
        0..1024 => flows.to_string(),
        1024..0x10_0000 => format!("{}k", flows >> 10),
        _ => format!("{}M", flows >> 20),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_candidate_is_named_and_drawn() {
        let rows =
            [("xdp_tx", 1), ("xdp_tx", 1024), ("nftables", 1)].map(|it| Row::example(it.0, it.1));
        let [(name, svg)] = &all(&rows).unwrap()[..] else {
            panic!("one picture")
        };
        assert_eq!(name, "performance-path-forward-v4-64.svg");
        assert!(svg.contains("xdp_tx") && svg.contains("nftables"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
    }
}
