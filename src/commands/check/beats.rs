//! Pure: whether the beats of early detection reach the other nodes, and the answers this one.

use super::Finding;
use crate::model::types::NodeName;
use crate::telemetry::log_text;
use crate::witness::PORT;
use core::net::SocketAddr;

/// The beats of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beats {
    /// Which node this is was said.
    pub is_named: bool,
    /// Where this node receives beats; `None` if it does not run, has early detection switched off, or is not named.
    pub own: Option<SocketAddr>,
    /// Each other node that receives beats, where, and whether it answered one of this node.
    pub others: Vec<(NodeName, SocketAddr, bool)>,
}

const ABOUT: &str = "beats";

/// What there is to say of them.
pub fn findings(beats: &Beats) -> Vec<Finding> {
    let addresses = beats.others.iter().map(|(_, address, _)| address);
    let ports = ports(addresses.chain(&beats.own));
    let Some(own) = beats.own else {
        let text = match (ports.is_empty(), beats.is_named) {
            (true, _) => format!(
                "no node receives any yet: firewalls must let UDP port {PORT} through, or that of --beat-address"
            ),
            (false, false) => {
                let others: Vec<&NodeName> = beats.others.iter().map(|(name, ..)| name).collect();
                format!(
                    "{} receive them: whether those of this node get there is tried with --name; firewalls must let UDP \
                     port {ports} through",
                    log_text::names(&others)
                )
            }
            (false, true) => format!(
                "this node does not run, or has --detect-window 0: whether beats reach the other nodes cannot be tried; \
                 firewalls must let UDP port {ports} through"
            ),
        };
        return vec![Finding::ok(ABOUT, text)];
    };
    let mut findings = Vec::new();
    let with = |answers: bool| beats.others.iter().filter(move |(.., it)| *it == answers);
    let answering: Vec<&NodeName> = with(true).map(|(name, ..)| name).collect();
    if !answering.is_empty() {
        let names = log_text::names(&answering);
        findings.push(Finding::ok(
            ABOUT,
            format!("they reach {names} and are answered, on UDP port {ports}"),
        ));
    }
    for (name, address, _) in with(false) {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "{name} does not answer at {address}: it cannot tell when this node is dead, other than by its lease"
            ),
            format!(
                "have firewalls let UDP from here to port {} there through, and to port {} here, with the answers; \
                 or start {name} if it hangs",
                address.port(),
                own.port()
            ),
        ));
    }
    if beats.others.is_empty() {
        let text = format!(
            "no other node receives beats: its lease alone tells whether this one is dead; firewalls must let UDP port \
             {ports} through once there are others"
        );
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

/// The ports, each once.
fn ports<'a>(addresses: impl Iterator<Item = &'a SocketAddr>) -> String {
    let mut ports: Vec<u16> = addresses.map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    log_text::names(&ports)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Level;
    use super::*;

    fn said(own: Option<&str>, others: &[(&str, &str, bool)]) -> Vec<(Level, String)> {
        let others = others.iter().map(|(name, address, answers)| {
            (name.parse().unwrap(), address.parse().unwrap(), *answers)
        });
        let beats = Beats {
            is_named: true,
            own: own.map(|it| it.parse().unwrap()),
            others: others.collect(),
        };
        let findings = findings(&beats).into_iter();
        findings
            .map(|it| (it.level, it.text + " " + &it.remedy.unwrap_or_default()))
            .collect()
    }

    /// Input: nodes that receive beats, and no word on which node this is. Output: said how to try, and which ports a
    /// firewall must open.
    #[test]
    fn without_a_name_it_is_said_how_to_try() {
        let other = |name: &str, port| {
            let name = name.parse::<NodeName>().unwrap();
            (name, SocketAddr::from(([192, 0, 2, 2], port)), false)
        };
        let mut beats = Beats {
            others: vec![other("gw2", 14789), other("gw3", 4000)],
            ..Beats::default()
        };
        let found = findings(&beats);
        assert_eq!((found.len(), found[0].level), (1, Level::Ok));
        assert_eq!(
            found[0].text,
            "gw2, gw3 receive them: whether those of this node get there is tried with --name; firewalls must let UDP \
             port 4000, 14789 through"
        );
        beats.others.clear();
        assert!(
            findings(&beats)[0]
                .text
                .contains("no node receives any yet")
        );
    }

    /// Input: nodes that answer and do not; a node that does not run; one that is alone. Output: who does not answer is
    /// named, with the ports that a firewall must open.
    #[test]
    fn who_does_not_answer_is_named() {
        let own = Some("192.0.2.1:14789");
        let two = ("gw2", "192.0.2.2:14789", true);
        let found = said(own, &[two, ("gw3", "192.0.2.3:4000", false)]);
        assert_eq!(
            found[0],
            (
                Level::Ok,
                "they reach gw2 and are answered, on UDP port 4000, 14789 ".to_owned()
            )
        );
        assert_eq!((found.len(), found[1].0), (2, Level::Warn));
        for part in [
            "gw3",
            "192.0.2.3:4000",
            "to port 4000 there",
            "port 14789 here",
        ] {
            assert!(found[1].1.contains(part), "{part}: {found:?}");
        }
        let found = said(None, &[two]);
        assert!(found[0].0 == Level::Ok && found[0].1.contains("UDP port 14789 through"));
        for (own, part) in [(None, "no node receives any yet"), (own, "lease alone")] {
            let found = said(own, &[]);
            assert!(
                found[0].0 == Level::Ok && found[0].1.contains(part),
                "{found:?}"
            );
            assert!(found[0].1.contains("UDP port 14789 through"), "{found:?}");
        }
    }
}
