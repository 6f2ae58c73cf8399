//! What was measured, as a table and as JSON.

use crate::bed::{Alarm, Shape};
use crate::probe::{Family, Flow, Way};
use crate::rows::Outcome;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// The worst of some flows in one direction and family.
fn worst(flows: &[Flow], family: Family, way: Way) -> String {
    let of = |flow: &&Flow| (flow.family, flow.way) == (family, way);
    let flows: Vec<&Flow> = flows.iter().filter(of).collect();
    let lost: u64 = flows.iter().map(|flow| flow.lost).sum();
    let Some(longest) = flows.iter().max_by_key(|flow| (!flow.restored, flow.gap)) else {
        return "- | -".to_owned();
    };
    let gap = match (longest.restored, lost) {
        (false, _) => format!("not over after {:.0} s", longest.gap.as_secs_f64()),
        (true, _) => format!("{:.2} s", longest.gap.as_secs_f64()),
    };
    format!("{gap} | {lost}")
}

/// The families that the flows have.
fn families(outcome: &Outcome) -> Vec<Family> {
    let has = |family: &Family| outcome.flows().any(|flow| flow.family == *family);
    [Family::V4, Family::V6].into_iter().filter(has).collect()
}

pub fn line(outcome: &Outcome) -> String {
    let vnis: BTreeSet<u32> = outcome.hit.iter().map(|flow| flow.vni).collect();
    let others: u64 = outcome.others.iter().map(|flow| flow.lost).sum();
    let mut line = format!("| {} | {}", outcome.title, vnis.len());
    for family in families(outcome) {
        for way in [Way::Up, Way::Down] {
            line += &format!(" | {}", worst(&outcome.hit, family, way));
        }
    }
    format!("{line} | {others} |")
}

pub fn table(outcomes: &[Outcome]) -> String {
    let mut head = "| what | VNIs".to_owned();
    for family in outcomes.first().map(families).unwrap_or_default() {
        for way in ["up", "down"] {
            head += &format!(" | {family}, {way}: longest gap | packets lost");
        }
    }
    head += " | lost by the others |\n";
    let columns = head.matches('|').count() - 1;
    head += &format!("|{}\n", "---|".repeat(columns));
    let lines = outcomes.iter().map(|outcome| line(outcome) + "\n");
    head + &lines.collect::<String>()
}

/// The outages of the VNIs that were hit, in seconds and ascending, for each family and direction that was probed.
pub fn outages(outcome: &Outcome) -> Vec<(String, Vec<f64>)> {
    let of = |family, way| {
        let of = |flow: &&Flow| (flow.family, flow.way) == (family, way);
        let flows = outcome.hit.iter().filter(of);
        let mut outages: Vec<f64> = flows.map(|flow| flow.gap.as_secs_f64()).collect();
        outages.sort_by(f64::total_cmp);
        (format!("{family}, {way}"), outages)
    };
    families(outcome)
        .into_iter()
        .flat_map(|family| [Way::Up, Way::Down].map(|way| of(family, way)))
        .filter(|(_, outages)| !outages.is_empty())
        .collect()
}

/// How the outages are spread over the VNIs.
pub fn spread(outcomes: &[Outcome]) -> String {
    let mut table = "| longest gap of a VNI | VNIs | first | median | 99 % | last |
|---|---|---|---|---|---|
"
    .to_owned();
    for outcome in outcomes {
        for (way, outages) in outages(outcome) {
            // The smallest value that so much of all are not above.
            let at = |percent: usize| outages[(outages.len() * percent).div_ceil(100).max(1) - 1];
            table += &format!(
                "| {}: {way} | {} | {:.2} s | {:.2} s | {:.2} s | {:.2} s |\n",
                outcome.title,
                outages.len(),
                outages[0],
                at(50),
                at(99),
                at(100)
            );
        }
    }
    table
}

/// What the daemons counted of early detection, as far as it is not 0.
pub fn alarms(outcome: &Outcome) -> String {
    let counted = outcome.alarms.iter().filter(|alarm| alarm.count > 0);
    let lines = counted.map(|alarm| format!("  {}: {} {}\n", alarm.node, alarm.name, alarm.count));
    lines.collect()
}

pub fn json(shape: &Shape, outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|outcome| {
        json!({
            "row": outcome.name,
            "what": outcome.title,
            "hit": outcome.hit.iter().map(flow).collect::<Vec<_>>(),
            "others": outcome.others.iter().map(flow).collect::<Vec<_>>(),
            "alarms": outcome.alarms.iter().map(alarm).collect::<Vec<_>>(),
        })
    });
    let all = json!({
        "vnis": shape.vnis,
        "stations": shape.stations,
        "rows": rows.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

fn alarm(alarm: &Alarm) -> Value {
    json!({ "node": alarm.node, "name": alarm.name, "count": alarm.count })
}

fn flow(flow: &Flow) -> Value {
    let seconds = |time: Duration| (time.as_secs_f64() * 1e4).round() / 1e4;
    json!({
        "vni": flow.vni,
        "way": flow.way.to_string(),
        "family": flow.family.to_string(),
        "sent": flow.sent,
        "lost": flow.lost,
        "twice": flow.twice,
        "longest_gap_s": seconds(flow.gap),
        "begins_s": seconds(flow.from),
        "restored": flow.restored,
    })
}
