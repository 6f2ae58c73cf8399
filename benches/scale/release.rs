//! A gateway that cannot forward gives all its VNIs back, and another takes them.

use crate::cluster::Cluster;
use crate::floor::Way;
use crate::observe::Stuck;
use crate::report::Figure;
use std::time::Duration;

/// The issue asks for this with 1000 VNIs, in seconds.
const TARGET: (u32, f64) = (1000, 1.0);

/// Two figures: the time, and what etcd is asked.
pub fn measure(figures: &mut Vec<Figure>, vnis: u32) -> Result<(), Stuck> {
    // Their hosts are mirrored into files: the signs are read from there.
    let mut cluster = Cluster::with(2, vnis, Duration::from_secs(60), |node| node);
    // The second takes no VNI that the first can serve.
    cluster.nodes[1].set_bad_signs("uplink-link");
    cluster.start()?;
    let has_all = |view: &crate::observe::View| (view.idle_at(0) == vnis as usize).then_some(());
    let patience = cluster.patience;
    cluster.observer.until("all at one", patience, has_all)?;
    let step = cluster.release(0)?;
    eprintln!("{vnis} VNIs: release: {:.2?}", step.time);
    let (way, floor) = cluster.aside(|etcd| {
        let way = Way::best(etcd);
        (way, way.floor(etcd, step.puts))
    });
    let target = Some(TARGET).filter(|(size, _)| *size == vnis);
    figures.push(Figure {
        what: format!("{vnis} VNIs: release and claim, from the bad sign on"),
        measured: Some(step.time.as_secs_f64()),
        unit: "s",
        floor: Some(floor.time.as_secs_f64()),
        target: target.map(|(_, time)| time),
        note: format!(
            "{} VNIs, {} puts in {} revisions; {:.2} s of etcd's CPU; floor: {}, {:.2} s of etcd's CPU",
            step.vnis,
            step.puts,
            step.revisions,
            step.cpu,
            way.describe(),
            floor.cpu,
        ),
        ..Figure::default()
    });
    figures.push(Figure {
        what: format!("{vnis} VNIs: release and claim: transactions, both daemons"),
        measured: Some(step.requests.of_method("Txn") as f64),
        note: format!("all requests: {}", step.requests),
        ..Figure::default()
    });
    Ok(())
}
