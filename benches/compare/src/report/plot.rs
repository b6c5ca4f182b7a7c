//! Bar plots: a bar per engine as long as its median, with a line from its least to its most.

use super::markdown::readable;
use super::summary::{Row, Summary};
use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// The width of every plot.
pub const WIDTH: i32 = 760;
/// Space at the top for the title.
pub const TITLE: i32 = 40;
const BAR: i32 = 18;
const STEP: i32 = 28;
const LEFT: i32 = 110;
/// Space at the right for the number at the end of a bar.
const RIGHT: i32 = 110;

pub const SUBJECT: RGBColor = RGBColor(200, 80, 30);
const PEER: RGBColor = RGBColor(70, 110, 160);
const YARDSTICK: RGBColor = RGBColor(180, 180, 180);

/// Writes the plot of one measure.
pub fn write(summary: &Summary, workload: &str, path: &Path) -> Result<()> {
    let height = TITLE + STEP * summary.rows.len() as i32 + 10;
    let title = format!("{workload}: {}, {}", summary.measure, summary.unit);
    write_titled(path, height, &title, |area| draw(area, summary))
}

/// The drawing area, in pixels.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
/// The result of drawing.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes a plot with a title, of the common width.
pub fn write_titled(path: &Path, height: i32, title: &str, draw: impl FnOnce(&Area) -> Drawn) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    let draw_all = || -> Drawn {
        area.fill(&WHITE)?;
        let font = ("sans-serif", 16).into_font().color(&BLACK);
        area.draw(&Text::new(title, (10, 12), font))?;
        draw(&area)?;
        area.present()?;
        Ok(())
    };
    draw_all()
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("draw {}", path.display()))
}

/// Writes words in the common font; `horizontal` says which part of them is at the point.
pub fn write_words(area: &Area, words: String, point: (i32, i32), horizontal: HPos) -> Drawn {
    let font = ("sans-serif", 13).into_font().color(&BLACK);
    let anchored = font.pos(Pos::new(horizontal, VPos::Center));
    area.draw(&Text::new(words, point, anchored))?;
    Ok(())
}

fn draw(area: &Area, summary: &Summary) -> Drawn {
    let most = summary.rows.iter().map(|row| row.most).fold(0.0, f64::max);
    let scale = f64::from(WIDTH - LEFT - RIGHT) / if most > 0.0 { most } else { 1.0 };
    for (row, place) in summary.rows.iter().zip(0..) {
        draw_row(area, row, TITLE + STEP * place, scale)?;
    }
    Ok(())
}

fn draw_row(area: &Area, row: &Row, top: i32, scale: f64) -> Drawn {
    let end = |value: f64| LEFT + (value * scale) as i32;
    let color = match (row.is_yardstick, row.engine.as_str()) {
        (true, _) => YARDSTICK,
        (false, "embercask") => SUBJECT,
        (false, _) => PEER,
    };
    let middle = top + BAR / 2;
    write_words(area, row.engine.clone(), (LEFT - 8, middle), HPos::Right)?;
    area.draw(&Rectangle::new(
        [(LEFT, top), (end(row.median).max(LEFT + 1), top + BAR)],
        color.filled(),
    ))?;
    area.draw(&PathElement::new(
        [(end(row.least), middle), (end(row.most), middle)],
        BLACK,
    ))?;
    write_words(area, readable(row.median), (end(row.most) + 8, middle), HPos::Left)
}
