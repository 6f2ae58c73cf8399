//! A picture of the outages by VNI: for each row and direction, which share of the VNIs had been out for at
//! most how long.

use crate::rows::Outcome;
use crate::table::outages;
use std::fmt::Write;

/// Size of the picture, and where its axes are, in pixels.
const SIZE: [f64; 2] = [760.0, 380.0];
const LEFT: f64 = 60.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 320.0;
/// Colours that differ in lightness too; after the last, the first again.
const COLOURS: [&str; 4] = ["#0b5394", "#e69138", "#38761d", "#a64d79"];

/// The picture as SVG.
pub fn svg(outcomes: &[Outcome]) -> String {
    let lines: Vec<(String, Vec<f64>)> = outcomes
        .iter()
        .flat_map(|outcome| {
            outages(outcome)
                .into_iter()
                .map(|(way, outages)| (format!("{}: {way}", outcome.title), outages))
        })
        .collect();
    let longest = lines.iter().flat_map(|(_, outages)| outages);
    let longest = longest.fold(1.0, |longest: f64, outage| longest.max(*outage));
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| longest / step <= 10.0)
        .unwrap_or(60.0);
    let span = (longest / step).ceil() * step;
    let x = |seconds: f64| LEFT + seconds / span * (RIGHT - LEFT);
    let y = |share: f64| BOTTOM - share * (BOTTOM - TOP);

    let mut svg = String::new();
    let [width, height] = SIZE;
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" \
         fill=\"#fff\"/>\n"
    );
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let at = y(share);
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {at}H{RIGHT}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{}\" \
             text-anchor=\"end\">{} %</text>\n",
            LEFT - 8.0,
            at + 4.0,
            share * 100.0
        );
    }
    let ticks = (span / step).round() as u32;
    for tick in 0..=ticks {
        let seconds = f64::from(tick) * step;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(seconds),
            BOTTOM + 18.0,
            (seconds * 10.0).round() / 10.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">seconds without a packet; share of the VNIs that were \
         out for at most so long</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 42.0
    );
    for (number, (label, outages)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = format!("M{LEFT} {BOTTOM}");
        for (index, outage) in outages.iter().enumerate() {
            let share = (index + 1) as f64 / outages.len() as f64;
            let _ = write!(path, "H{:.1}V{:.1}", x(*outage), y(share));
        }
        let at = TOP + 20.0 + 18.0 * number as f64;
        let _ = write!(
            svg,
            "<path d=\"{path}H{RIGHT}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{}\" y=\"{at}\" fill=\"{colour}\" text-anchor=\"middle\">{label}</text>\n",
            (LEFT + RIGHT) / 2.0,
        );
    }
    svg + "</svg>\n"
}
