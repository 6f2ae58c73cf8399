//! The outcome of a benchmark: a table to read, and the same as JSON.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// One figure.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The figure; none if it did not come to an end.
    pub measured: Option<f64>,
    /// What it is measured in.
    pub unit: &'static str,
    /// What no program can go below, measured in the same run.
    pub floor: Option<f64>,
    /// It ought to be below this.
    pub target: Option<f64>,
    /// Its ratio to the floor ought to be below this.
    pub target_ratio: Option<f64>,
    /// What the original program reached.
    pub original: &'static str,
    /// What else is to be said.
    pub note: String,
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        Some(self.measured? / self.floor?)
    }

    /// Whether it is as it ought to be; `None` if nothing was asked.
    fn is_met(&self) -> Option<bool> {
        let asked = [
            (self.measured, self.target),
            (self.ratio(), self.target_ratio),
        ];
        let asked = asked.iter().filter_map(|(is, target)| {
            let target = (*target)?;
            Some(is.is_some_and(|is| is < target))
        });
        asked.reduce(|all, one| all && one)
    }

    fn cells(&self) -> [String; 7] {
        let number = |it: f64| match it {
            _ if it >= 100.0 => format!("{it:.0}"),
            _ if it >= 10.0 => format!("{it:.1}"),
            _ => format!("{it:.2}"),
        };
        let with_unit = |it| {
            format!("{} {}", number(it), self.unit)
                .trim_end()
                .to_owned()
        };
        let below = |it| format!("< {}", with_unit(it));
        let ratio = |it: f64| format!("< {it} x the floor");
        let targets: Vec<String> = [self.target.map(below), self.target_ratio.map(ratio)]
            .into_iter()
            .flatten()
            .collect();
        let verdict = self.is_met().map(|met| if met { "met" } else { "MISSED" });
        [
            self.what.clone(),
            self.measured.map_or("no end".into(), with_unit),
            self.floor.map(with_unit).unwrap_or_default(),
            self.ratio().map(number).unwrap_or_default(),
            targets.join(", "),
            verdict.unwrap_or_default().to_owned(),
            self.original.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "measured": self.measured, "unit": self.unit, "floor": self.floor,
            "ratio": self.ratio(), "target": self.target, "target_ratio": self.target_ratio,
            "met": self.is_met(), "original": self.original, "note": self.note,
        })
    }
}

/// Prints the table and writes JSON to `path`.
pub fn publish(figures: &[Figure], path: &Path) {
    const HEAD: [&str; 7] = [
        "what", "measured", "floor", "ratio", "target", "", "original",
    ];
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(figures.iter().map(Figure::cells));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    println!();
    for (index, line) in lines.iter().enumerate() {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(it, width)| format!("{it:width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let rule = widths.map(|width| "-".repeat(width + 2));
            println!("|{}|", rule.join("|"));
        }
    }
    println!();
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        println!("{}: {}", figure.what, figure.note);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("the directory of the JSON can be made");
    }
    let values: Vec<Value> = figures.iter().map(Figure::json).collect();
    fs::write(path, format!("{:#}\n", Value::from(values))).expect("the JSON can be written");
    println!("\nwritten to {}", path.display());
}

/// Where the JSON of a benchmark goes by default.
pub fn default_path(name: &str) -> PathBuf {
    // `target/tmp`, wherever `target` is.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = tmp.parent().unwrap_or(tmp);
    target.join("bench").join(name)
}
