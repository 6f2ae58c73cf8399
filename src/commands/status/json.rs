//! Pure: a report as one JSON object.

use super::{Guard, Report, Since, VniReport, VniState};
use crate::guard::view::View;
use crate::model::fitness::Sign;
use crate::model::types::{NodeName, Vni};
use crate::schema::{Ipv6Hold, KernelHold};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The report, and the single VNIs that were asked for, on one line. Times are seconds.
///
/// The VNIs of a state are runs of first and last, so that 64 000 of them stay a short line.
pub fn json(report: &Report, asked: &[VniReport]) -> String {
    let nodes: Vec<Value> = report
        .nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name.as_str(),
                "state": node.health.word(),
                "version": node.version,
                "range": node.range.map(|range| [range.first().get(), range.last().get()]),
                "points": node.points,
                "share": node.share,
                "lease": node.lease.map(|left| left.as_secs()),
                "kernel_lease": node.kernel.as_ref().map(kernel_hold),
                "ipv6": node.ipv6.as_ref().map(ipv6_hold),
                "owns": node.owns,
                "gains": node.gains,
                "loses": node.loses,
                "rank": node.fitness.map(|it| it.rank.number()),
                "witnesses": node.proof.as_ref().map(|(names, _)| texts(names)),
                "window": node.proof.as_ref().map(|(_, window)| window.as_secs_f64()),
                "bad_signs": node.fitness.map(|it| it.bad.iter().map(Sign::name).collect::<Vec<_>>()),
            })
        })
        .collect();
    let mut states = Map::new();
    for state in VniState::ALL {
        let in_state = report.vnis.iter().filter(|vni| vni.state == state);
        let which: Vec<Vni> = in_state.clone().map(|vni| vni.vni).collect();
        let oldest = in_state.filter_map(|vni| vni.since).max();
        states.insert(
            state.word().replace(' ', "_"),
            json!({"count": which.len(), "longest": oldest.map(since), "vnis": runs(&which)}),
        );
    }
    let rows: Vec<Value> = asked.iter().map(row).collect();
    json!({
        "all_served": report.all_served(),
        "revision": report.revision.0,
        "time": report.time,
        "nodes": nodes,
        "witnesses": texts(&report.witnesses),
        "guards": report.guards.iter().map(guard).collect::<Vec<_>>(),
        "states": states,
        "vnis": rows,
        "warnings": report.warnings,
    })
    .to_string()
        + "\n"
}

/// Where etcd does not answer: the reason, and what the guards on this host know.
pub fn json_without_etcd(reason: &str, guards: &[Guard]) -> String {
    let guards: Vec<Value> = guards.iter().map(guard).collect();
    json!({"all_served": null, "error": reason, "guards": guards}).to_string() + "\n"
}

fn texts(names: &[NodeName]) -> Vec<&str> {
    names.iter().map(NodeName::as_str).collect()
}

/// The parts of a guard that is not known are null.
fn guard(guard: &Guard) -> Value {
    let view = guard.view.as_ref().ok();
    let lease = |it: &View| it.lease.map(|lease| lease.valid_until.since(it.now));
    json!({
        "name": guard.node,
        "user": guard.user,
        "unknown": guard.view.as_ref().err(),
        "version": view.map(|it| &it.version),
        "daemon": view.map(|it| it.has_daemon),
        "answering": view.map(|it| it.answering),
        "proof": view.map(View::has_proof),
        "age": view.and_then(View::age).map(milliseconds),
        "left": view.map(|it| milliseconds(it.left())),
        "lease": view.and_then(lease).map(milliseconds),
        "proofs_lost": view.map(|it| it.losses),
        "beats_late": view.map(|it| it.late),
        "witnesses": view.map(acknowledgements),
    })
}

fn acknowledgements(view: &View) -> Vec<Value> {
    let counted = view.acknowledgements();
    let one = counted.map(|it| {
        json!({
            "name": it.name.as_str(),
            "in_place": it.is_in_place,
            "acknowledged": it.ago.map(milliseconds),
        })
    });
    one.collect()
}

/// Seconds, to the millisecond.
fn milliseconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

fn kernel_hold(hold: &KernelHold) -> Value {
    match hold {
        KernelHold::Held => json!({"held": true, "why": null}),
        KernelHold::Missing(why) => json!({"held": false, "why": why}),
    }
}

fn ipv6_hold(hold: &Ipv6Hold) -> Value {
    json!({
        "bridges": hold.bridges,
        "switched": hold.bridges > 0 && hold.lack.is_none(),
        "why": hold.lack,
    })
}

fn row(vni: &VniReport) -> Value {
    let name =
        |name: &Option<crate::model::types::NodeName>| name.as_ref().map(|it| it.to_string());
    json!({
        "vni": vni.vni.get(),
        "state": vni.state.word().replace(' ', "_"),
        "served": vni.state.is_served(),
        "owner": name(&vni.owner),
        "successor": name(&vni.successor),
        "ring_owner": name(&vni.ring_owner),
        "since": vni.since.map(since),
        "row": vni.row,
    })
}

/// At least and at most so many seconds.
fn since(since: Since) -> Value {
    json!({"at_least": since.at_least.as_secs(), "at_most": since.at_most.map(|it| it.as_secs())})
}

/// First and last of each run of `vnis`, which ascend.
fn runs(vnis: &[Vni]) -> Vec<[u32; 2]> {
    let mut runs: Vec<[u32; 2]> = Vec::new();
    for vni in vnis.iter().map(|vni| vni.get()) {
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == vni => *last = vni,
            _ => runs.push([vni, vni]),
        }
    }
    runs
}
