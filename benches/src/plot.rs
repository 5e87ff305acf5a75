//! A picture of curves on two logarithmic axes, as SVG text.

use std::fmt::Write as _;

/// A curve: x, the lower and the upper y of each point.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;
/// Told apart also by those who see fewer colours.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A logarithmic axis of whole decades.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
        for value in values.filter(|value| *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self { first, last: last.max(first + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - f64::from(self.first))
            / f64::from(self.last - self.first);
        self.from + share * (self.to - self.from)
    }
}

/// Draws the curves: their lower ys solid, the upper ones dashed.
pub(crate) fn draw(x: &str, y: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let across = Axis::over(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let up = Axis::over(points().flat_map(|point| [point.1, point.2]), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for decade in across.first..=across.last {
        let (at, end) = (across.place(10_f64.powi(decade)), HEIGHT - BOTTOM);
        let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{end}\" stroke=\"#ddd\"/>");
        let (below, text) = (end + 18.0, number(decade));
        let _ =
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>");
    }
    for decade in up.first..=up.last {
        let (at, end) = (up.place(10_f64.powi(decade)), WIDTH - RIGHT);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/>");
        let (beside, text) = (LEFT - 8.0, number(decade));
        let _ = writeln!(
            svg,
            "<text x=\"{beside}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            at + 4.0
        );
    }
    let (middle, low) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{x}</text>");
    let centre = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = writeln!(
        svg,
        "<text transform=\"translate(16 {centre}) rotate(-90)\" text-anchor=\"middle\">{y}</text>"
    );
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path = |upper: bool| {
            let mut path = String::new();
            for (x, low, high) in &curve.points {
                let sign = if path.is_empty() { 'M' } else { 'L' };
                let y = up.place(if upper { *high } else { *low });
                let _ = write!(path, "{sign}{:.1} {y:.1}", across.place(*x));
            }
            path
        };
        let _ = writeln!(
            svg,
            "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path(false)
        );
        let _ = writeln!(
            svg,
            "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"5 4\"/>",
            path(true)
        );
        let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 20.0 + 20.0 * index as f64);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", curve.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn number(decade: i32) -> String {
    match decade {
        6.. => format!("{} M", 10_f64.powi(decade - 6)),
        3.. => format!("{} k", 10_f64.powi(decade - 3)),
        _ => 10_f64.powi(decade).to_string(),
    }
}
