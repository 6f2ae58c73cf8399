//! Pure: whether etcd is there, is one cluster, keeps leases as promised, and has a place for this node.

use super::Finding;
use super::refusal::Refusal;
use crate::etcd::MemberStatus;
use crate::model::purpose::Purpose;
use crate::model::types::NodeName;
use crate::schema::Meta;
use crate::telemetry::log_text;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node as it is registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Whether it has a lease, so that the node is alive.
    pub lives: bool,
    /// What it says of itself; a Go wmgwd says nothing.
    pub meta: Option<Meta>,
}

/// What a lease on trial did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The TTL that was granted.
    pub granted: Duration,
    /// The TTL that a keepalive brought; `None` if the lease was gone by then.
    pub renewed: Option<Duration>,
    /// How long the slowest of these calls took.
    pub slowest: Duration,
}

/// etcd.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Database {
    /// Each endpoint, and how the member there is or why it does not answer.
    pub members: Vec<(String, Result<MemberStatus, Refusal>)>,
    /// How many members of the cluster vote, if it says so.
    pub voters: Option<usize>,
    /// The lease on trial.
    pub lease: Option<Result<Trial, Refusal>>,
    /// Why this node may not write where it has to.
    pub write: Option<Refusal>,
    /// The nodes, or why they cannot be read.
    pub nodes: Option<Result<BTreeMap<NodeName, Registered>, Refusal>>,
    /// What is allowed but hardly meant in how etcd is reached.
    pub warnings: Vec<String>,
    /// How long one call may take.
    pub timeout: Duration,
}

const ABOUT: &str = "etcd";
/// The placeholder in a text for the endpoints that it is about, until all of them are known.
const THERE: &str = "\0";

/// What there is to say of etcd. `running` is whether a wmgwd runs on this host, if
/// that was looked at.
pub fn findings(purpose: &Purpose, etcd: &Database, running: Option<bool>) -> Vec<Finding> {
    let mut findings = members(etcd);
    for text in &etcd.warnings {
        findings.push(Finding::warn(ABOUT, text, "correct what the line names"));
    }
    match &etcd.lease {
        Some(Ok(trial)) => findings.extend(lease(purpose, etcd, trial)),
        Some(Err(refusal)) => findings.push(Finding::fail(
            "lease",
            format!("none can be had: {}", refusal.reason),
            refusal.remedy,
        )),
        None => {}
    }
    if let Some(refusal) = &etcd.write {
        findings.push(Finding::fail(
            ABOUT,
            format!("keys below /wmgwd/ cannot be written: {}", refusal.reason),
            refusal.remedy,
        ));
    }
    match &etcd.nodes {
        Some(Ok(nodes)) => {
            findings.extend(name(purpose, nodes, running));
            findings.extend(ranges(purpose, nodes));
        }
        Some(Err(refusal)) => findings.push(Finding::fail(
            ABOUT,
            format!("the nodes cannot be read: {}", refusal.reason),
            refusal.remedy,
        )),
        None => {}
    }
    findings
}

fn members(etcd: &Database) -> Vec<Finding> {
    let mut findings = Vec::new();
    let well = etcd
        .members
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.has_leader));
    let alone = well.count() == 0;
    // A finding of several members becomes one line.
    let mut said: Vec<(Finding, Vec<&str>)> = Vec::new();
    for (endpoint, status) in &etcd.members {
        let finding = member(endpoint, status, alone);
        match said.iter_mut().find(|(known, _)| *known == finding) {
            Some((_, endpoints)) if endpoints.contains(&endpoint.as_str()) => {}
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => said.push((finding, vec![endpoint])),
        }
    }
    findings.extend(said.into_iter().map(|(finding, endpoints)| Finding {
        text: finding.text.replace(THERE, &endpoints.join(", ")),
        ..finding
    }));
    let clusters: BTreeSet<u64> = etcd
        .members
        .iter()
        .filter_map(|(_, status)| Some(status.as_ref().ok()?.cluster))
        .collect();
    if clusters.len() > 1 {
        findings.push(Finding::fail(
            ABOUT,
            "the endpoints are members of different clusters",
            "give --etcd the members of one cluster: see `etcdctl endpoint status`",
        ));
    }
    if etcd.members.len() == 1 {
        findings.push(Finding::warn(
            ABOUT,
            "one endpoint alone: when its member fails, this node is fenced after its lease",
            "name the other members too, in --etcd",
        ));
    }
    if let Some(few @ 1..=2) = etcd.voters {
        let text = match few {
            1 => {
                "this etcd is a cluster of one: when it fails, every gateway is fenced, and a gateway with another etcd owns every VNI as well"
            }
            _ => "this etcd is a cluster of two: when either member fails, every gateway is fenced",
        };
        findings.push(Finding::warn(
            ABOUT,
            text,
            "add members, three or five in all: etcdctl member add",
        ));
    }
    findings
}

/// The state of the member at `endpoint`; texts have [`THERE`] in its place. `alone` is whether none is well.
fn member(endpoint: &str, status: &Result<MemberStatus, Refusal>, alone: bool) -> Finding {
    let bad = |text: String, remedy: &str| match alone {
        true => Finding::fail(ABOUT, text, remedy),
        false => Finding::warn(ABOUT, text, remedy),
    };
    match status {
        Err(refusal) if refusal.reason.contains(endpoint) => {
            bad(refusal.reason.replace(endpoint, THERE), refusal.remedy)
        }
        Err(refusal) => bad(format!("{THERE}: {}", refusal.reason), refusal.remedy),
        Ok(status) if !status.has_leader => bad(
            format!("{THERE}: no leader, as most members are away"),
            "start the other members",
        ),
        Ok(status) if !status.alarms.is_empty() => Finding::fail(
            ABOUT,
            format!(
                "{THERE}: an alarm is raised, and writes fail: {}",
                status.alarms.join(", ")
            ),
            "compact and defragment it, then: etcdctl alarm disarm",
        ),
        Ok(status) if too_old(&status.version) => Finding::fail(
            ABOUT,
            format!(
                "{THERE}: version {}, and wmgwd needs 3.4 or later",
                status.version
            ),
            "upgrade etcd",
        ),
        Ok(status) if is_nearly_full(status) => {
            let quota = match status.quota {
                Some(quota) => format!("its quota of {quota} bytes"),
                None => {
                    format!("{DEFAULT_QUOTA} bytes, which is its quota unless it is told another")
                }
            };
            Finding::warn(
                ABOUT,
                format!(
                    "{THERE}: its data take {} bytes, and at {quota} every write fails and each gateway is fenced",
                    status.size
                ),
                "compact and defragment it (etcd's maintenance guide), or raise --quota-backend-bytes of each member",
            )
        }
        Ok(status) => Finding::ok(ABOUT, format!("{THERE}: version {}", status.version)),
    }
}

/// What etcd takes for --quota-backend-bytes if it is not given.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// Whether four fifths of the quota are taken.
fn is_nearly_full(status: &MemberStatus) -> bool {
    status.size / 4 >= status.quota.unwrap_or(DEFAULT_QUOTA) / 5
}

/// Whether a version is known to be older than 3.4.
fn too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (3, 4),
        _ => false,
    }
}

fn lease(purpose: &Purpose, etcd: &Database, trial: &Trial) -> Vec<Finding> {
    const ABOUT: &str = "lease";
    let asked = purpose.ttl;
    let mut findings = Vec::new();
    if trial.granted < asked {
        findings.push(Finding::fail(
            ABOUT,
            format!("asked for {asked:?}, etcd granted {:?}", trial.granted),
            "give --lease-ttl what etcd grants",
        ));
    } else if trial.granted > asked {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "asked for {asked:?}, etcd grants no less than {:?}: a failover takes that long",
                trial.granted
            ),
            "give etcd a shorter --election-timeout, or live with it",
        ));
    }
    match trial.renewed {
        None => findings.push(Finding::fail(
            ABOUT,
            "was gone at once, before it could be renewed",
            "see etcd's log",
        )),
        Some(renewed) if renewed != trial.granted => findings.push(Finding::fail(
            ABOUT,
            format!("granted for {:?}, renewed for {renewed:?}", trial.granted),
            "see etcd's log",
        )),
        Some(_) => {}
    }
    if trial.slowest > etcd.timeout / 2 {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "a call took {:?}, and {:?} is the most that a keepalive may take",
                trial.slowest, etcd.timeout
            ),
            "give etcd a faster disk or network, or the node a greater --lease-ttl",
        ));
    }
    if findings.is_empty() {
        let text = format!("{asked:?} granted, renewed and revoked");
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

fn name(
    purpose: &Purpose,
    nodes: &BTreeMap<NodeName, Registered>,
    running: Option<bool>,
) -> Option<Finding> {
    const ABOUT: &str = "name";
    let name = purpose.name.as_ref()?;
    Some(match nodes.get(name) {
        Some(node) if node.lives && running.is_none() => Finding::warn(
            ABOUT,
            format!("{name} is registered by a live wmgwd; whether it runs here was not looked at"),
            "choose another --name, unless that is the node that you mean",
        ),
        Some(node) if node.lives && running == Some(false) => Finding::fail(
            ABOUT,
            format!("{name} is registered by another live wmgwd, and none runs on this host"),
            "choose another --name, or wait for two leases if it has just died",
        ),
        Some(node) if node.lives => {
            Finding::ok(ABOUT, format!("{name} is registered, and runs here"))
        }
        Some(_) => Finding::warn(
            ABOUT,
            format!(
                "/wmgwd/node/{name} is there without a lease: the ring counts a node that is none"
            ),
            format!("etcdctl del /wmgwd/node/{name}"),
        ),
        None => Finding::ok(ABOUT, format!("{name} is free")),
    })
}

fn ranges(purpose: &Purpose, nodes: &BTreeMap<NodeName, Registered>) -> Vec<Finding> {
    const ABOUT: &str = "other nodes";
    let others: Vec<(&NodeName, &Registered)> = nodes
        .iter()
        .filter(|(name, node)| node.lives && purpose.name.as_ref() != Some(name))
        .collect();
    let range = purpose.range;
    let differ: Vec<&NodeName> = others
        .iter()
        .filter(|(_, node)| node.meta.as_ref().is_some_and(|meta| meta.range != range))
        .map(|(name, _)| *name)
        .collect();
    let silent: Vec<&NodeName> = others
        .iter()
        .filter(|(_, node)| node.meta.is_none())
        .map(|(name, _)| *name)
        .collect();
    let mut findings = Vec::new();
    if !differ.is_empty() {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "serve other VNIs than {}-{}: {}",
                range.first(),
                range.last(),
                log_text::names(&differ)
            ),
            "give all nodes the same --minvni and --maxvni, unless that is what you want",
        ));
    }
    if !silent.is_empty() {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "do not say what they serve, as daemons of the Go program: {}",
                log_text::names(&silent)
            ),
            "give them the same --minvni and --maxvni, or upgrade them",
        ));
    }
    if findings.is_empty() {
        let text = match others.len() {
            0 => "none".to_owned(),
            count => format!("{count}, all of the same range"),
        };
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::tests::{purpose, said};
    use super::*;

    fn well() -> Database {
        let member = MemberStatus {
            version: "3.4.23".into(),
            cluster: 1,
            has_leader: true,
            size: 20480,
            ..MemberStatus::default()
        };
        let seconds = Duration::from_secs;
        Database {
            members: vec![("a".into(), Ok(member.clone())), ("b".into(), Ok(member))],
            lease: Some(Ok(Trial {
                granted: seconds(5),
                renewed: Some(seconds(5)),
                slowest: Duration::from_millis(2),
            })),
            write: None,
            warnings: Vec::new(),
            voters: Some(3),
            nodes: Some(Ok(BTreeMap::new())),
            timeout: seconds(1),
        }
    }

    fn levels(etcd: &Database, running: impl Into<Option<bool>>) -> Vec<Level> {
        let findings = findings(&purpose(1, 3), etcd, running.into());
        said(&findings)
            .into_iter()
            .map(|(level, _)| level)
            .collect()
    }

    #[test]
    fn a_cluster_that_is_as_it_must_be() {
        assert_eq!(levels(&well(), false), []);
    }

    /// Contract: a finding of several members is one line that names them; also where the reason names one.
    #[test]
    fn what_members_have_in_common_is_said_once() {
        let refused = |reason: &str| {
            Err(Refusal {
                reason: reason.into(),
                remedy: "correct it",
            })
        };
        let texts = |members: Vec<(&str, Result<MemberStatus, Refusal>)>| {
            let members = members.into_iter().map(|(at, it)| (at.to_owned(), it));
            let etcd = Database {
                members: members.collect(),
                ..Database::default()
            };
            let texts = super::members(&etcd).into_iter().map(|it| it.text);
            texts.collect::<Vec<_>>()
        };
        let well = || well().members[0].1.clone();
        let file = "cannot read --cacert /none: No such file";
        assert_eq!(
            texts(vec![
                ("http://a", refused(file)),
                ("http://b", refused(file))
            ]),
            [format!("http://a, http://b: {file}")]
        );
        assert_eq!(
            texts(vec![
                (
                    "http://a",
                    refused("no connection to http://a; is it there?")
                ),
                ("http://b", well()),
                (
                    "http://c",
                    refused("no connection to http://c; is it there?")
                ),
                (
                    "http://c",
                    refused("no connection to http://c; is it there?")
                ),
                ("http://d", well()),
            ]),
            [
                "no connection to http://a, http://c; is it there?",
                "http://b, http://d: version 3.4.23"
            ]
        );
    }

    #[test]
    fn a_cluster_that_no_member_may_leave() {
        for (voters, expected) in [
            (1, &[Level::Warn][..]),
            (2, &[Level::Warn]),
            (3, &[]),
            (4, &[]),
        ] {
            let etcd = Database {
                voters: Some(voters),
                ..well()
            };
            assert_eq!(levels(&etcd, false), expected, "{voters}");
        }
    }

    /// One member that is away is a warning, as long as another answers; all of them are a failure.
    #[test]
    fn members_that_do_not_answer() {
        let mut etcd = well();
        etcd.members[0].1 = Err(Refusal {
            reason: "no connection".into(),
            remedy: "start it",
        });
        assert_eq!(levels(&etcd, false), [Level::Warn]);
        etcd.members[1].1 = Ok(MemberStatus {
            has_leader: false,
            ..well().members[1].1.clone().unwrap_or_default()
        });
        assert_eq!(levels(&etcd, false), [Level::Fail, Level::Fail]);
    }

    #[test]
    fn members_that_answer_and_will_not_do() {
        for change in [
            |it: &mut MemberStatus| it.alarms.push("memberID:1 alarm:NOSPACE ".into()),
            |it: &mut MemberStatus| it.version = "3.3.27".into(),
            |it: &mut MemberStatus| it.cluster = 2,
        ] {
            let mut etcd = well();
            if let Ok(member) = &mut etcd.members[0].1 {
                change(member);
            }
            assert_eq!(levels(&etcd, false), [Level::Fail]);
        }
        for (size, quota, level) in [
            (1_700_000_000, None, Level::Ok),
            (1_800_000_000, None, Level::Warn),
            (1_800_000_000, Some(8 << 30), Level::Ok),
            (3_400_000, Some(4_000_000), Level::Warn),
        ] {
            let mut etcd = well();
            if let Ok(member) = &mut etcd.members[0].1 {
                (member.size, member.quota) = (size, quota);
            }
            let worst = members(&etcd).iter().map(|it| it.level).max();
            assert_eq!(worst, Some(level), "{size} of {quota:?}");
        }
        assert!(!too_old("4.0.0") && !too_old("3.10.1") && too_old("2.3.8") && !too_old("main"));
    }

    #[test]
    fn leases_that_are_not_kept_as_promised() {
        let seconds = |number| Duration::from_secs(number);
        let usual = Trial {
            granted: seconds(5),
            renewed: Some(seconds(5)),
            slowest: seconds(0),
        };
        let longer = Trial {
            granted: seconds(9),
            renewed: Some(seconds(9)),
            ..usual
        };
        let gone = Trial {
            renewed: None,
            ..usual
        };
        let slow = Trial {
            slowest: Duration::from_millis(600),
            ..usual
        };
        let wrong = Trial {
            renewed: Some(seconds(4)),
            ..usual
        };
        for (trial, level) in [
            (longer, Level::Warn),
            (gone, Level::Fail),
            (slow, Level::Warn),
            (wrong, Level::Fail),
        ] {
            let etcd = Database {
                lease: Some(Ok(trial)),
                ..well()
            };
            assert_eq!(levels(&etcd, false), [level], "{trial:?}");
        }
    }

    #[test]
    fn a_name_that_another_has() {
        let lives = |lives| {
            let node = Registered { lives, meta: None };
            let name = purpose(1, 3).name.into_iter();
            Database {
                nodes: Some(Ok(name.map(|name| (name, node.clone())).collect())),
                ..well()
            }
        };
        assert_eq!(levels(&lives(true), false), [Level::Fail]);
        assert_eq!(levels(&lives(true), true), []);
        assert_eq!(levels(&lives(true), None), [Level::Warn]);
        assert_eq!(levels(&lives(false), false), [Level::Warn]);
    }
}
