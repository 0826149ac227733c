//! Pictures of measurements: lines over an axis, as SVG.

use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;

/// Pixels.
const SIZE: (u32, u32) = (1200, 480);
/// Room above the highest value.
const HEADROOM: f64 = 1.1;
/// Marks beyond this many have no labels: nobody could read them.
const LABELS_MAX: usize = 24;

/// A moment that matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where on the x axis.
    pub at: f64,
    /// What happened.
    pub label: String,
}

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What the x axis shows.
    pub x: String,
    /// What the y axis shows.
    pub y: String,
    /// Named lines.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Moments, as vertical lines.
    pub marks: Vec<Mark>,
}

/// Draws it into a file.
pub fn write(path: &Path, chart: &Chart) -> anyhow::Result<()> {
    let svg = render(chart).with_context(|| format!("draw {}", path.display()))?;
    std::fs::write(path, svg).with_context(|| format!("write {}", path.display()))
}

fn render(chart: &Chart) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let points = || chart.lines.iter().flat_map(|(_, points)| points);
        let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let top = points().map(|(_, y)| *y).fold(1.0, f64::max) * HEADROOM;
        let mut axes = ChartBuilder::on(&area)
            .caption(&chart.title, ("sans-serif", 22))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        axes.configure_mesh()
            .x_desc(&chart.x)
            .y_desc(&chart.y)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (number, (name, points)) in chart.lines.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            axes.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(1)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
        axes.draw_series(chart.marks.iter().map(|mark| {
            PathElement::new([(mark.at, 0.0), (mark.at, top)], RED.mix(0.5).stroke_width(1))
        }))?;
        let style = ("sans-serif", 11).into_font().transform(FontTransform::Rotate90).color(&RED);
        axes.draw_series(
            chart
                .marks
                .iter()
                .take(LABELS_MAX)
                .map(|mark| Text::new(mark.label.clone(), (mark.at, top), style.clone())),
        )?;
        if chart.lines.len() > 1 {
            axes.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
        }
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_lines_its_marks_and_its_words() {
        let chart = Chart {
            title: "writes".into(),
            x: "seconds".into(),
            y: "a second".into(),
            lines: vec![("writes".into(), vec![(0.0, 1.0), (1.0, 5.0), (2.0, 0.0)])],
            marks: vec![Mark { at: 1.5, label: "kill server-2".into() }],
        };
        let svg = render(&chart).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        assert!(svg.contains("<polyline"), "{svg}");
        assert!(svg.contains("kill server-2"), "{svg}");
        assert!(svg.contains("seconds"), "{svg}");
    }
}
