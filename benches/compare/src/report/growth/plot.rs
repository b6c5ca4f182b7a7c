//! Line plots: numbers of keys to the right, costs upward, and a line per engine with a marker at
//! each median.

use super::axis::Axis;
use super::{Growth, Line};
use crate::report::markdown::{grouped, readable};
use crate::report::plot::{Area, Drawn, SUBJECT, TITLE, WIDTH, write_titled, write_words};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::path::Path;

const HEIGHT: i32 = 440;
const LEFT: i32 = 80;
const BOTTOM: i32 = HEIGHT - 50;
/// Right end of the frame; the legend is further right.
const RIGHT: i32 = WIDTH - 150;
/// Space between the frame and the first and last markers.
const INSET: i32 = 20;
const LEGEND_STEP: i32 = 22;
const MARKER: i32 = 4;

const GRID: RGBColor = RGBColor(225, 225, 225);
/// Colors of peers, which have to be distinguishable as lines.
const PEERS: [RGBColor; 7] = [
    RGBColor(90, 60, 40),
    RGBColor(50, 100, 190),
    RGBColor(40, 150, 80),
    RGBColor(140, 70, 170),
    RGBColor(30, 170, 190),
    RGBColor(200, 160, 30),
    RGBColor(220, 100, 160),
];
const YARDSTICKS: [RGBColor; 4] = [
    RGBColor(190, 190, 190),
    RGBColor(90, 90, 90),
    RGBColor(160, 160, 160),
    RGBColor(125, 125, 125),
];

/// Writes the plot of one workload.
pub fn write(growth: &Growth, path: &Path) -> Result<()> {
    let title = format!("{}: {}", growth.workload.name, growth.cost);
    write_titled(path, HEIGHT, &title, |area| draw(area, growth))
}

fn draw(area: &Area, growth: &Growth) -> Drawn {
    let points = || growth.lines.iter().flat_map(|line| &line.points);
    let mut keys: Vec<f64> = points().map(|(keys, _)| *keys as f64).collect();
    keys.sort_by(f64::total_cmp);
    keys.dedup();
    let rightward = Axis {
        ticks: keys,
        is_logarithmic: true,
    };
    let least = points().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min);
    let most = points().map(|(_, cost)| *cost).fold(0.0, f64::max);
    let upward = if growth.is_time && least > 0.0 {
        Axis::logarithmic(least, most)
    } else {
        Axis::from_zero(most)
    };
    let across = |keys: f64| LEFT + INSET + (rightward.position(keys) * f64::from(RIGHT - LEFT - 2 * INSET)) as i32;
    let up = |cost: f64| BOTTOM - (upward.position(cost) * f64::from(BOTTOM - TITLE)) as i32;
    for tick in &upward.ticks {
        let height = up(*tick);
        area.draw(&PathElement::new([(LEFT, height), (RIGHT, height)], GRID))?;
        write_words(area, short(*tick), (LEFT - 8, height), HPos::Right)?;
    }
    for tick in &rightward.ticks {
        let place = across(*tick);
        area.draw(&PathElement::new([(place, TITLE), (place, BOTTOM)], GRID))?;
        write_words(area, grouped(*tick), (place, BOTTOM + 14), HPos::Center)?;
    }
    area.draw(&Rectangle::new([(LEFT, TITLE), (RIGHT, BOTTOM)], BLACK))?;
    let scale = if upward.is_logarithmic {
        "keys; both axes are logarithmic"
    } else {
        "keys; their axis is logarithmic"
    };
    write_words(area, scale.into(), ((LEFT + RIGHT) / 2, BOTTOM + 36), HPos::Center)?;
    // In the order of the lines' right ends, so that the legend matches them.
    let mut lines: Vec<&Line> = growth.lines.iter().collect();
    let last = |line: &Line| line.points.last().map_or(0.0, |(_, cost)| *cost);
    lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
    for (line, place) in lines.into_iter().zip(0..) {
        let points = line.points.iter().map(|(keys, cost)| (across(*keys as f64), up(*cost)));
        draw_line(area, line, points.collect())?;
        let height = TITLE + 10 + LEGEND_STEP * place;
        let middle = RIGHT + 28;
        draw_line(
            area,
            line,
            vec![(middle - 14, height), (middle, height), (middle + 14, height)],
        )?;
        write_words(area, line.engine.clone(), (middle + 22, height), HPos::Left)?;
    }
    Ok(())
}

/// A line with its markers: discs, squares for yardsticks. The subject's is thicker.
fn draw_line(area: &Area, line: &Line, points: Vec<(i32, i32)>) -> Drawn {
    let is_subject = line.engine == "embercask";
    let color = match (line.is_yardstick, is_subject) {
        (true, _) => YARDSTICKS[line.place % YARDSTICKS.len()],
        (false, true) => SUBJECT,
        (false, false) => PEERS[line.place % PEERS.len()],
    };
    let width = if is_subject { 3 } else { 2 };
    for (x, y) in &points {
        if line.is_yardstick {
            let corners = [(x - MARKER, y - MARKER), (x + MARKER, y + MARKER)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
        } else {
            area.draw(&Circle::new((*x, *y), MARKER, color.filled()))?;
        }
    }
    area.draw(&PathElement::new(points, color.stroke_width(width)))?;
    Ok(())
}

/// A readable number without trailing zeros after the point.
fn short(value: f64) -> String {
    let text = readable(value);
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}
