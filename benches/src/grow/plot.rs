//! Plots of growth on logarithmic axes.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Growth;

const SIZE: (u32, u32) = (760, 420);
const COLORS: [RGBColor; 5] = [
    RGBColor(200, 60, 30),
    RGBColor(40, 90, 160),
    RGBColor(60, 140, 80),
    RGBColor(130, 90, 160),
    RGBColor(120, 120, 120),
];

/// Draws a plot as SVG.
pub(crate) fn draw(growth: &Growth, path: &Path) -> Result<()> {
    picture(growth, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn picture(growth: &Growth, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let points = || growth.columns.iter().flat_map(|column| column.points.iter().copied());
    let widest = points().map(|(at, _)| place(at)).fold(1.0, f64::max);
    let least = points().map(|(at, _)| place(at)).fold(f64::MAX, f64::min);
    let (low, high) = points()
        .map(|(_, value)| value)
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(growth.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (least..widest * 1.05).log_scale(),
            (low / 2.0..high * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(growth.axis)
        .y_desc(growth.unit)
        .light_line_style(WHITE)
        .draw()?;
    for (column, color) in growth.columns.iter().zip(COLORS.iter().cycle()) {
        let points = column.points.iter().map(|(at, value)| (place(*at), *value));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(column.name.clone())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A logarithmic axis has no zero, so a zero is drawn at a half.
fn place(at: u64) -> f64 {
    if at == 0 { 0.5 } else { at as f64 }
}
