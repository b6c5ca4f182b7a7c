//! Plots: a bar for each engine, drawn at the length of its median, with a line from its least to its most.

use super::markdown::readable;
use super::summary::{Row, Summary};
use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const WIDTH: i32 = 760;
const TITLE: i32 = 40;
const BAR: i32 = 18;
const STEP: i32 = 28;
const LEFT: i32 = 110;
/// Kept free at the right, for the number at the end of a bar.
const RIGHT: i32 = 110;

const SUBJECT: RGBColor = RGBColor(200, 80, 30);
const PEER: RGBColor = RGBColor(70, 110, 160);
const YARDSTICK: RGBColor = RGBColor(180, 180, 180);

/// Writes the plot of one measure.
pub fn write(summary: &Summary, workload: &str, path: &Path) -> Result<()> {
    let size = (WIDTH as u32, (TITLE + STEP * summary.rows.len() as i32 + 10) as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    draw(&area, summary, workload)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("draw {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(area: &Area, summary: &Summary, workload: &str) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let title = format!("{workload}: {}, {}", summary.measure, summary.unit);
    area.draw(&Text::new(
        title,
        (10, 12),
        ("sans-serif", 16).into_font().color(&BLACK),
    ))?;
    let most = summary.rows.iter().map(|row| row.most).fold(0.0, f64::max);
    let scale = f64::from(WIDTH - LEFT - RIGHT) / if most > 0.0 { most } else { 1.0 };
    for (row, place) in summary.rows.iter().zip(0..) {
        draw_row(area, row, TITLE + STEP * place, scale)?;
    }
    area.present()?;
    Ok(())
}

fn draw_row(area: &Area, row: &Row, top: i32, scale: f64) -> Result<(), Box<dyn std::error::Error>> {
    let end = |value: f64| LEFT + (value * scale) as i32;
    let color = match (row.is_yardstick, row.engine.as_str()) {
        (true, _) => YARDSTICK,
        (false, "embercask") => SUBJECT,
        (false, _) => PEER,
    };
    let middle = top + BAR / 2;
    let font = ("sans-serif", 13).into_font().color(&BLACK);
    let name = font.pos(Pos::new(HPos::Right, VPos::Center));
    area.draw(&Text::new(row.engine.clone(), (LEFT - 8, middle), name))?;
    area.draw(&Rectangle::new(
        [(LEFT, top), (end(row.median).max(LEFT + 1), top + BAR)],
        color.filled(),
    ))?;
    area.draw(&PathElement::new(
        [(end(row.least), middle), (end(row.most), middle)],
        BLACK,
    ))?;
    let number = ("sans-serif", 13)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(readable(row.median), (end(row.most) + 8, middle), number))?;
    Ok(())
}
