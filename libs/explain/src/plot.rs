//! Plots as inline SVG. Black is what the page makes the colour of its text; the
//! colours of the series stand out on white and on black.

use std::ops::Range;

use plotters::prelude::*;

/// Colours of series, in order; then from the start.
pub(crate) const COLOURS: [&str; 6] = [
    "#3b7dd8", "#d9822b", "#2a9d6f", "#b0559b", "#c2443c", "#8a8f3c",
];

const COLOURS_RGB: [RGBColor; 6] = [
    RGBColor(0x3b, 0x7d, 0xd8),
    RGBColor(0xd9, 0x82, 0x2b),
    RGBColor(0x2a, 0x9d, 0x6f),
    RGBColor(0xb0, 0x55, 0x9b),
    RGBColor(0xc2, 0x44, 0x3c),
    RGBColor(0x8a, 0x8f, 0x3c),
];

/// Width and height: small enough to be read at a phone's width.
const SIZE: (u32, u32) = (420, 300);

/// A line plot.
pub(crate) struct Plot<'a> {
    pub(crate) x: Range<f64>,
    pub(crate) y: Range<f64>,
    pub(crate) x_name: &'a str,
    pub(crate) y_name: &'a str,
    pub(crate) x_label: &'a dyn Fn(&f64) -> String,
    pub(crate) y_label: &'a dyn Fn(&f64) -> String,
    /// Points of each line, and whether they are marked.
    pub(crate) lines: Vec<(Vec<(f64, f64)>, bool)>,
    /// Intervals: place, low and high, in the first line's colour.
    pub(crate) bars: Vec<(f64, f64, f64)>,
}

impl Plot<'_> {
    /// The SVG; `None` where there is nothing to draw.
    pub(crate) fn draw(&self) -> Option<String> {
        let drawable = |range: &Range<f64>| {
            range.start.is_finite() && range.end.is_finite() && range.start < range.end
        };
        if !drawable(&self.x) || !drawable(&self.y) || self.lines.iter().all(|l| l.0.is_empty()) {
            return None;
        }
        let mut svg = String::new();
        self.draw_on(&mut svg).ok()?;
        Some(svg)
    }

    fn draw_on(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .x_labels(5)
            .y_labels(6)
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .axis_style(BLACK.mix(0.5))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .x_desc(self.x_name)
            .y_desc(self.y_name)
            .x_label_formatter(self.x_label)
            .y_label_formatter(self.y_label)
            .draw()?;
        for &(x, low, high) in &self.bars {
            let style = COLOURS_RGB[0].mix(0.45).stroke_width(3);
            chart.draw_series([PathElement::new([(x, low), (x, high)], style)])?;
        }
        for (i, (points, marked)) in self.lines.iter().enumerate() {
            let colour = COLOURS_RGB[i % COLOURS_RGB.len()];
            if let (true, &[point]) = (*marked, points.as_slice()) {
                chart.draw_series([Circle::new(point, 5, colour.filled())])?;
                continue;
            }
            let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            if *marked {
                chart.draw_series(series.point_size(3))?;
            } else {
                chart.draw_series(series)?;
            }
        }
        area.present()?;
        Ok(())
    }
}
