//! Turns what a program writes to a terminal, colours and all, into a picture: standard input to
//! SVG on standard output.

use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut shown = String::new();
    std::io::stdin().read_to_string(&mut shown)?;
    print!("{}", anstyle_svg::Term::new().render_svg(&shown));
    Ok(())
}
