//! Turns terminal output, with its colours, into a picture: standard input to SVG on standard
//! output.

use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut shown = String::new();
    std::io::stdin().read_to_string(&mut shown)?;
    print!("{}", anstyle_svg::Term::new().render_svg(&shown));
    Ok(())
}
