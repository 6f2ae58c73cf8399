//! The numbers in Prometheus's text format, version 0.0.4. Pure.
//!
//! Names and units follow Prometheus's conventions: base units, `_total` for what only grows, one metric with
//! labels instead of many. `man/wmgwd.8` lists them; a test holds the two together.

use super::{Attempts, Counter, DAEMONS, ETCD_CALLS, Metrics, RENEWAL_BOUNDS, Repair};
use crate::model::fitness::Sign;
use crate::model::fsm::{Kind, Role};
use crate::model::types::{NodeName, Time, VniRange};
use crate::telemetry::counters::{KINDS, Outcomes, ROLES, SERVE_BOUNDS};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the numbers are of.
#[derive(Clone, Debug)]
pub struct About {
    /// The node.
    pub name: NodeName,
    /// The VNIs that it serves.
    pub range: VniRange,
}

/// A text as it grows.
struct Page(String);

impl Page {
    /// Begins the metric `wmgwd_<name>`.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP wmgwd_{name} {help}");
        let _ = writeln!(self.0, "# TYPE wmgwd_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "wmgwd_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// A metric of one sample.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Three metrics: how often, how often in vain, for how long.
    fn attempts<'a>(
        &mut self,
        [tried, failed, took]: [&str; 3],
        help: [&str; 3],
        label: &str,
        each: impl Iterator<Item = (&'a str, &'a Attempts)> + Clone,
    ) {
        type Value = fn(&Attempts) -> f64;
        let of: [(&str, Value); 3] = [
            (tried, |attempts| attempts.tried.get() as f64),
            (failed, |attempts| attempts.failed.get() as f64),
            (took, |attempts| attempts.took().as_secs_f64()),
        ];
        for ((name, value), help) in of.into_iter().zip(help) {
            self.begin(name, "counter", help);
            for (text, attempts) in each.clone() {
                self.sample(name, &[(label, text)], value(attempts));
            }
        }
    }

    /// A histogram of durations: how many are in each bucket, with its upper bound in milliseconds; how many there
    /// are, and how long they are together.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (u64, u64)>,
        count: u64,
        sum: Duration,
    ) {
        self.begin(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut so_far = 0;
        for (bound, count) in buckets {
            so_far += count;
            let bound = Duration::from_millis(bound).as_secs_f64();
            self.sample(&bucket, &[("le", &bound.to_string())], so_far);
        }
        self.sample(&bucket, &[("le", "+Inf")], count);
        self.sample(&format!("{name}_sum"), &[], sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn outcomes(&mut self, name: &str, labels: &[(&str, &str)], outcomes: Outcomes) {
        for (result, count) in [("done", outcomes.done), ("aborted", outcomes.aborted)] {
            let labels = [labels, &[("result", result)]].concat();
            self.sample(name, &labels, count);
        }
    }
}

/// A label's value, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Successor => "successor",
        Role::Bystander => "none",
    }
}

/// All of it, as of `now`.
pub fn page(metrics: &Metrics, about: &About, now: Time) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    about_the_node(&mut page, metrics, about, now);
    about_witnesses(&mut page, metrics);
    about_vnis(&mut page, metrics, about, now);
    about_etcd(&mut page, metrics, now);
    about_the_host(&mut page, metrics);
    page.0
}

fn about_the_node(page: &mut Page, metrics: &Metrics, about: &About, now: Time) {
    page.single(
        "start_time_seconds",
        "gauge",
        "When the daemon started, in seconds since 1970 (UTC).",
        metrics.started.load(Ordering::Relaxed),
    );
    page.begin("build_info", "gauge", "Always 1; which program this is.");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.sample("build_info", &version, 1);
    page.begin(
        "node_info",
        "gauge",
        "Always 1; which node this is, and the VNIs it serves.",
    );
    let (first, last) = (
        about.range.first().to_string(),
        about.range.last().to_string(),
    );
    let node = [
        ("node", about.name.as_str()),
        ("minvni", &first),
        ("maxvni", &last),
    ];
    page.sample("node_info", &node, 1);
    let standing = metrics.summary().1;
    page.single(
        "registered",
        "gauge",
        "Whether etcd has the node registered and its rows are known.",
        u8::from(standing.in_sync),
    );
    page.single(
        "draining",
        "gauge",
        "Whether the node was told to go.",
        u8::from(standing.leaving),
    );
    page.single(
        "drained",
        "gauge",
        "Whether an operator drained the node: it takes no VNIs.",
        u8::from(standing.drained),
    );
    let left = |until: Option<Time>| until.map_or(0.0, |until| until.since(now).as_secs_f64());
    page.single(
        "lease_remaining_seconds",
        "gauge",
        "Until the lease can end; 0 without a lease.",
        left(metrics.lease_until.get()),
    );
    page.single(
        "fence_remaining_seconds",
        "gauge",
        "Until the node is fenced if the lease is not renewed; 0 while it is fenced.",
        left(metrics.proved_until.get()),
    );
    page.single(
        "fence_remaining_lowest_seconds",
        "gauge",
        "The least that was left until the node is fenced, since these numbers were asked for last.",
        metrics.take_lowest_margin(now).as_secs_f64(),
    );
    page.single(
        "lease_adopted",
        "gauge",
        "Whether the daemon started with the lease of a run before that had died.",
        u8::from(metrics.was_adopted.load(Ordering::Relaxed)),
    );
    page.begin(
        "fencings_total",
        "counter",
        "How often the lease could not be proved any more, and which process withdrew the VNIs then.",
    );
    let fenced = [
        ("daemon", &metrics.fenced_by_daemon),
        ("guard", &metrics.fenced_by_guard),
    ];
    for (by, count) in fenced {
        page.sample("fencings_total", &[("by", by)], count.get());
    }
    page.single(
        "guard_up",
        "gauge",
        "Whether there is a guard.",
        u8::from(metrics.guard_is_there.load(Ordering::Relaxed)),
    );
    let gate = left(metrics.gate_until.get());
    page.single(
        "kernel_lease_held",
        "gauge",
        "Whether the kernel stops answering ARP by itself when the lease ends.",
        u8::from(metrics.gate_holds.load(Ordering::Relaxed)),
    );
    page.single(
        "kernel_lease_remaining_seconds",
        "gauge",
        "Until the kernel stops answering ARP by itself, at most, if the lease is not renewed; 0 if it does not.",
        gate,
    );
    page.single(
        "ipv6_bridges",
        "gauge",
        "Bridges that have IPv6 gateway addresses.",
        metrics.ipv6_bridges.load(Ordering::Relaxed),
    );
    page.single(
        "ipv6_switched",
        "gauge",
        "Whether IPv6 gateway addresses are switched together with ARP.",
        u8::from(metrics.ipv6_is_switched.load(Ordering::Relaxed)),
    );
    page.single(
        "kernel_lease_grants_refused_total",
        "counter",
        "Attempts to have the kernel hold the lease that it refused, or that took too long.",
        metrics.grants_refused.get(),
    );
    page.single(
        "kernel_lease_tables_lost_total",
        "counter",
        "How often something else on this host removed or changed the table of the kernel lease.",
        metrics.gates_lost.get(),
    );
}

fn about_witnesses(page: &mut Page, metrics: &Metrics) {
    page.single(
        "witnesses",
        "gauge",
        "Other nodes whose acknowledgements prove this node, beside its lease.",
        metrics.witnesses.load(Ordering::Relaxed),
    );
    page.single(
        "proof_window_seconds",
        "gauge",
        "How long an acknowledged beat proves this node; 0 if it names no witness.",
        metrics.window().as_secs_f64(),
    );
    let (lowest, lateness) = metrics.take_lowest_proof();
    if let Some(lowest) = lowest {
        page.single(
            "proof_remaining_lowest_seconds",
            "gauge",
            "The least that the proof by witnesses had left, since these numbers were asked for last; not there without it.",
            lowest.as_secs_f64(),
        );
    }
    page.single(
        "guard_lateness_highest_seconds",
        "gauge",
        "How late the guard woke up to send beats at most, since these numbers were asked for last.",
        lateness.as_secs_f64(),
    );
    for (name, help, counter) in [
        (
            "proofs_lost_total",
            "How often too few witnesses acknowledged in time while the lease held.",
            &metrics.proofs_lost,
        ),
        (
            "beats_late_total",
            "Beats that the guard was late to send.",
            &metrics.beats_late,
        ),
        (
            "beats_sent_total",
            "Datagrams that the guard sent to other nodes.",
            &metrics.beats_sent,
        ),
        (
            "beat_answers_total",
            "Answers of other nodes that the guard received.",
            &metrics.beat_answers,
        ),
        (
            "guard_datagrams_dropped_total",
            "Datagrams to the guard that the kernel dropped, because it did not read them in time.",
            &metrics.guard_dropped,
        ),
        (
            "votes_total",
            "Votes of this node against nodes whose beats it did not hear.",
            &metrics.votes,
        ),
        (
            "evictions_total",
            "How often this node was evicted by its witnesses.",
            &metrics.evictions,
        ),
    ] {
        page.single(name, "counter", help, counter.get());
    }
    page.begin(
        "beats_received_total",
        "counter",
        "Datagrams that came to the port for beats.",
    );
    for (result, counter) in [
        ("acknowledged", &metrics.beats_answered),
        ("dropped", &metrics.beats_refused),
    ] {
        page.sample("beats_received_total", &[("result", result)], counter.get());
    }
}

fn about_vnis(page: &mut Page, metrics: &Metrics, about: &About, now: Time) {
    let summary = metrics.summary().0.clone();
    page.single(
        "vnis_served",
        "gauge",
        "VNIs that this node owns while it can prove its lease.",
        summary.served,
    );
    let written: u32 = summary.rows.iter().flatten().sum();
    let unwritten = u32::try_from(about.range.len())
        .unwrap_or(u32::MAX)
        .saturating_sub(written);
    page.begin(
        "vnis",
        "gauge",
        "VNIs of this node's range by their state in etcd and this node's role in it.",
    );
    for number in 0..KINDS {
        let Some(kind) = Kind::from_number(number.into()) else {
            continue;
        };
        for (role, count) in ROLES.iter().zip(summary.rows[usize::from(number)]) {
            // A row that no node has written is unassigned.
            let is_unwritten = number == 0 && *role == Role::Bystander;
            let count = count + if is_unwritten { unwritten } else { 0 };
            let labels = [("state", kind.name()), ("role", role_name(*role))];
            page.sample("vnis", &labels, count);
        }
    }
    if metrics.knows(now) {
        page.single(
            "vnis_without_owner",
            "gauge",
            "VNIs of this node's range that have no owner, in any state; not there while the node cannot know.",
            summary.orphans + unwritten,
        );
    }
    page.single(
        "vnis_without_bridge",
        "gauge",
        "VNIs of this node's range that it has no bridge for, and leaves to other nodes.",
        metrics.summary().1.bridgeless,
    );
    page.begin(
        "failovers_total",
        "counter",
        "VNIs without an owner that this node claimed, and whether it became the owner.",
    );
    page.outcomes("failovers_total", &[], summary.failovers);
    page.begin(
        "migrations_total",
        "counter",
        "Migrations to (in) and from (out) this node that have ended, and how.",
    );
    let directions = [("in", summary.moved_in), ("out", summary.moved_out)];
    for (direction, outcomes) in directions {
        page.outcomes("migrations_total", &[("direction", direction)], outcomes);
    }
    page.single(
        "oldest_transition_seconds",
        "gauge",
        "How long the VNI that has been on its way to an owner for the longest has been so; 0 if none is.",
        summary
            .in_transition_since
            .map_or(0.0, |since| now.since(since).as_secs_f64()),
    );
    let served = &summary.time_to_serve;
    page.histogram(
        "time_to_serve_seconds",
        "From when this node saw a VNI without an owner, or claimed it, until it became the owner.",
        SERVE_BOUNDS.into_iter().zip(served.counts),
        served.count,
        served.sum,
    );
}

fn about_etcd(page: &mut Page, metrics: &Metrics, now: Time) {
    let calls = ETCD_CALLS.iter().zip(&metrics.etcd);
    page.attempts(
        [
            "etcd_requests_total",
            "etcd_request_errors_total",
            "etcd_request_seconds_total",
        ],
        [
            "Requests to etcd, by operation; each endpoint that is tried counts.",
            "Requests to etcd that failed or were refused.",
            "Time spent on requests to etcd; of a watch until it is confirmed.",
        ],
        "operation",
        calls.map(|((_, name), attempts)| (*name, attempts)),
    );
    let renewals = &metrics.renewals;
    page.histogram(
        "lease_renewal_seconds",
        "How long renewals of the lease took, with the question that proves them.",
        RENEWAL_BOUNDS
            .into_iter()
            .zip(renewals.counts.iter().map(Counter::get)),
        renewals.count.get(),
        renewals.nanos.time(),
    );
    let endpoint = metrics.endpoint().clone();
    if !endpoint.is_empty() {
        page.begin(
            "etcd_endpoint_info",
            "gauge",
            "Always 1; the endpoint that renewed the lease last.",
        );
        page.sample("etcd_endpoint_info", &[("endpoint", &endpoint)], 1);
    }
    page.single(
        "watch_revisions_behind",
        "gauge",
        "Revisions that etcd had when it was asked last and that have not arrived.",
        metrics.behind(),
    );
    if let Some(at) = metrics.confirmed_at.get() {
        page.single(
            "watch_unconfirmed_seconds",
            "gauge",
            "Since everything that etcd had is known to have arrived.",
            now.since(at).as_secs_f64(),
        );
    }
}

fn about_the_host(page: &mut Page, metrics: &Metrics) {
    let counts = metrics
        .neighbours
        .iter()
        .map(|it| it.load(Ordering::Relaxed) - 1);
    let counts = ["evpn", "ospf"].into_iter().zip(counts);
    let known: Vec<_> = counts.filter(|(_, count)| *count >= 0).collect();
    if !known.is_empty() {
        page.begin(
            "neighbours",
            "gauge",
            "Established BGP sessions for EVPN, and interfaces with a full OSPF adjacency.",
        );
    }
    for (protocol, count) in known {
        page.sample("neighbours", &[("protocol", protocol)], count);
    }
    let fitness = metrics.present_fitness();
    page.single(
        "fitness_rank",
        "gauge",
        "How well this gateway can forward: 2 is fit, 1 has no uplink, 0 is unfit.",
        fitness.rank.number(),
    );
    page.begin(
        "fitness_sign_bad",
        "gauge",
        "Whether the sign says that this gateway cannot forward.",
    );
    for sign in Sign::ALL {
        let bad = u8::from(fitness.bad.has(sign));
        page.sample("fitness_sign_bad", &[("sign", sign.name())], bad);
    }
    page.begin("frr_up", "gauge", "Whether the FRR daemon runs.");
    for (daemon, up) in DAEMONS.iter().zip(&metrics.frr) {
        let up = u8::from(up.load(Ordering::Relaxed));
        page.sample("frr_up", &[("daemon", daemon)], up);
    }
    page.attempts(
        [
            "vtysh_runs_total",
            "vtysh_errors_total",
            "vtysh_seconds_total",
        ],
        [
            "Runs of vtysh, by the FRR daemon spoken to.",
            "Runs of vtysh that did not end in time, could not be started, or found no daemon.",
            "Time spent in runs of vtysh.",
        ],
        "daemon",
        DAEMONS.iter().copied().zip(&metrics.vtysh),
    );
    page.single(
        "frr_refusals_total",
        "counter",
        "Changes of VNIs that FRR did not take, wholly or in part.",
        metrics.frr_refused.get(),
    );
    page.begin(
        "repairs_total",
        "counter",
        "VNIs of which something else on this host had changed ARP or FRR, and that were put back.",
    );
    for (what, count) in Repair::ALL.iter().zip(&metrics.repaired) {
        page.sample("repairs_total", &[("what", what.name())], count.get());
    }
    page.single(
        "gratuitous_arp_announcements_total",
        "counter",
        "Announcements of VNIs by gratuitous ARP that were sent.",
        metrics.announced.get(),
    );
    page.single(
        "notify_runs_total",
        "counter",
        "Runs of the notify command.",
        metrics.notified.tried.get(),
    );
    page.single(
        "notify_errors_total",
        "counter",
        "Runs of the notify command that failed, or were ended as they took too long.",
        metrics.notified.failed.get(),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::types::{Lease, LeaseId, Vni};

    fn at(seconds: u64) -> Time {
        Time::since_boot(Duration::from_secs(seconds))
    }

    fn example() -> String {
        let (metrics, about) = example_of(13);
        page(&metrics, &about, at(10))
    }

    /// A node that is fenced after `proved` seconds, and heard from etcd after 8.
    fn example_of(proved: u64) -> (Metrics, About) {
        let metrics = Metrics::default();
        metrics.etcd_request("/v3/kv/txn", at(7), Duration::from_millis(1500), true);
        metrics.vtysh_run("bgpd", Duration::from_millis(250), false);
        metrics.polled(
            crate::model::types::Revision(0),
            Time::since_boot(Duration::from_secs(8)),
        );
        let lease = Lease {
            id: LeaseId(1),
            valid_until: at(proved + 1),
        };
        metrics.lease(at(8), Some(lease), Duration::from_secs(1));
        metrics.started(1_700_000_000, true);
        metrics.renewed(Duration::from_millis(3), "http://etcd1:2379".into());
        metrics.repaired(Repair::Frr, 2);
        metrics.frr_refused(4);
        metrics.neighbours([Some(2), None]);
        metrics.proof(Some(Duration::from_millis(200)), Duration::ZERO);
        let about = About {
            name: "a\"b\\c".parse().unwrap(),
            range: VniRange::new(Vni::MIN, Vni::new(50).unwrap()).unwrap(),
        };
        (metrics, about)
    }

    #[test]
    fn numbers_stand_where_they_belong() {
        let text = example();
        for line in [
            r#"wmgwd_node_info{node="a\"b\\c",minvni="1",maxvni="50"} 1"#,
            r#"wmgwd_vnis{state="unassigned",role="none"} 50"#,
            r#"wmgwd_etcd_requests_total{operation="txn"} 1"#,
            r#"wmgwd_etcd_request_errors_total{operation="txn"} 1"#,
            r#"wmgwd_etcd_request_seconds_total{operation="txn"} 1.5"#,
            r#"wmgwd_vtysh_seconds_total{daemon="bgpd"} 0.25"#,
            r#"wmgwd_time_to_serve_seconds_bucket{le="0.1"} 0"#,
            r#"wmgwd_time_to_serve_seconds_bucket{le="+Inf"} 0"#,
            "wmgwd_watch_unconfirmed_seconds 2",
            "wmgwd_lease_remaining_seconds 4",
            "wmgwd_fence_remaining_seconds 3",
            "wmgwd_fence_remaining_lowest_seconds 3",
            "wmgwd_start_time_seconds 1700000000",
            "wmgwd_lease_adopted 1",
            r#"wmgwd_lease_renewal_seconds_bucket{le="0.002"} 0"#,
            r#"wmgwd_lease_renewal_seconds_bucket{le="0.005"} 1"#,
            "wmgwd_lease_renewal_seconds_sum 0.003",
            r#"wmgwd_etcd_endpoint_info{endpoint="http://etcd1:2379"} 1"#,
            r#"wmgwd_repairs_total{what="arp"} 0"#,
            r#"wmgwd_repairs_total{what="frr"} 2"#,
            "wmgwd_frr_refusals_total 4",
            "wmgwd_oldest_transition_seconds 0",
            r#"wmgwd_neighbours{protocol="evpn"} 2"#,
            "wmgwd_vnis_without_owner 50",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }

    /// Input: a node that is fenced, or has not heard from etcd for long. Output: it does not claim to know how many
    /// VNIs have an owner.
    #[test]
    fn a_node_that_cannot_know_does_not_count_owners() {
        let (metrics, about) = example_of(13);
        assert!(page(&metrics, &about, at(12)).contains("\nwmgwd_vnis_without_owner 50\n"));
        assert!(!page(&metrics, &about, at(13)).contains("wmgwd_vnis_without_owner"));
        let (metrics, about) = example_of(100);
        assert!(page(&metrics, &about, at(18)).contains("\nwmgwd_vnis_without_owner 50\n"));
        assert!(!page(&metrics, &about, at(19)).contains("wmgwd_vnis_without_owner"));
    }

    /// Contract: the man page names every metric, with its type, and no other.
    #[test]
    fn the_man_page_lists_them_all() {
        let text = example();
        let there: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let man = include_str!("../../../man/wmgwd.8");
        let listed: Vec<String> = man
            .lines()
            .filter_map(|line| line.strip_prefix(".It Va wmgwd_"))
            .map(|rest| format!("wmgwd_{}", rest.replace(" Pq ", " ")))
            .collect();
        assert_eq!(there, listed);
    }
}
