//! Pure: what the signs say of this host's links, neighbours and FRR, and which of them count. They decide its rank
//! among the gateways.

use super::Finding;
use super::beats::Beats;
use crate::host::frr::inspection::{Answer, Inspection};
use crate::model::fitness::{Sign, SignSet, SignState};

/// One finding for each sign; those that are not in `track` do not count.
pub fn findings<'a>(
    track: SignSet,
    signs: impl Iterator<Item = &'a (Sign, SignState)>,
) -> impl Iterator<Item = Finding> {
    signs.map(move |(sign, state)| {
        let counts = track.has(*sign);
        let said = match state {
            SignState::Good(what) => what.clone(),
            // A laboratory has no upstream router, and a gateway that has just started no neighbour yet.
            SignState::Unknown(why) => format!("not judged: {why}"),
            SignState::Bad(why) => why.clone(),
        };
        match state {
            _ if !counts => Finding::ok(
                sign.name(),
                format!("{said}; --track has it count for nothing"),
            ),
            SignState::Bad(_) => Finding::fail(
                sign.name(),
                format!("{said}: this gateway gives its VNIs to a better one"),
                remedy(*sign),
            ),
            _ => Finding::ok(sign.name(), said),
        }
    })
}

/// What beats say, as far as a look from outside of the daemon can tell.
pub fn of_beats(beats: Option<&Beats>) -> SignState {
    match beats {
        Some(beats) if beats.others.iter().any(|(.., answers)| *answers) => {
            SignState::Good("other nodes acknowledge those of this one".to_owned())
        }
        _ => SignState::Unknown(
            "the daemon tells it by what other nodes say of it: see wmgwd status".to_owned(),
        ),
    }
}

/// What FRR's daemons say of themselves. (What their configuration lacks is told by other findings.)
pub fn of_frr(frr: &Inspection, needs_ospfd: bool) -> SignState {
    const ALL: [&str; 3] = ["zebra", "bgpd", "ospfd"];
    let needed = match needs_ospfd {
        true => &ALL[..],
        false => &ALL[..2],
    };
    if let Some(reason) = &frr.vtysh {
        return SignState::Bad(format!("vtysh cannot be run: {reason}"));
    }
    let asked = frr.daemons.iter().filter(|it| needed.contains(&it.0));
    let mut denied = Vec::new();
    let mut dead = Vec::new();
    for (daemon, answer) in asked {
        match answer {
            Some(Answer::Answers) => {}
            Some(Answer::Down) => dead.push(format!("{daemon} does not run")),
            Some(Answer::Silent(_)) => dead.push(format!("{daemon} does not answer")),
            Some(Answer::Denied) | None => denied.push(*daemon),
        }
    }
    match (dead.is_empty(), denied.is_empty()) {
        (false, _) => SignState::Bad(dead.join(", ")),
        (true, false) => SignState::Unknown(format!("{} could not be asked", denied.join(", "))),
        (true, true) => SignState::Good(format!("{} answer", needed.join(", "))),
    }
}

fn remedy(sign: Sign) -> &'static str {
    match sign {
        Sign::FabricLink | Sign::UplinkLink => {
            "repair cable and switch port, and switch the interface on (ip link set IF up); or name the right ones \
             with --track-fabric and --track-uplink"
        }
        Sign::Beats => {
            "have firewalls let the UDP port of beats through, in both directions; see the lines on beats"
        }
        Sign::Evpn => "vtysh -c 'show bgp l2vpn evpn summary' says which sessions are down",
        Sign::Ospf => "vtysh -c 'show ip ospf neighbor' says which adjacencies are not full",
        Sign::Frr => "systemctl restart frr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    /// Input: signs of each kind, one of which is bad and not tracked. Output: a line for each; only the bad one that
    /// is tracked fails.
    #[test]
    fn every_sign_is_named_and_only_a_bad_one_that_counts_fails() {
        let signs = [
            (
                Sign::FabricLink,
                SignState::Bad("eth0 has no carrier".into()),
            ),
            (Sign::Evpn, SignState::Unknown("FRR does not answer".into())),
            (
                Sign::UplinkLink,
                SignState::Bad("up0 is switched off".into()),
            ),
            (Sign::Ospf, SignState::Good("2 OSPF neighbours full".into())),
        ];
        let uplink = SignSet::NONE.with(Sign::UplinkLink);
        let found: Vec<Finding> = findings(SignSet::ALL.without(uplink), signs.iter()).collect();
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Ok, Level::Ok, Level::Ok]);
        let abouts: Vec<&str> = found.iter().map(|it| it.about).collect();
        assert_eq!(abouts, ["fabric-link", "evpn", "uplink-link", "ospf"]);
        assert!(found[0].text.starts_with("eth0 has no carrier: "));
        assert_eq!(found[1].text, "not judged: FRR does not answer");
        assert!(found[2].text.starts_with("up0 is switched off; "));
    }

    /// A look from outside cannot tell a node that is cut off from one that does not run.
    #[test]
    fn beats_are_good_or_unknown() {
        let answered = |answers| Beats {
            is_named: true,
            own: "192.0.2.1:14789".parse().ok(),
            others: vec![(
                "gw2".parse().expect("a name"),
                "192.0.2.2:14789".parse().expect("an address"),
                answers,
            )],
        };
        assert!(matches!(
            of_beats(Some(&answered(true))),
            SignState::Good(_)
        ));
        for beats in [None, Some(&answered(false)), Some(&Beats::default())] {
            assert!(matches!(of_beats(beats), SignState::Unknown(_)));
        }
    }

    #[test]
    fn frr_is_bad_when_a_daemon_that_is_needed_is_gone() {
        let of = |answers: [Answer; 4]| {
            let daemons = ["zebra", "bgpd", "ospfd", "bfdd"].into_iter();
            let frr = Inspection {
                daemons: daemons.zip(answers.map(Some)).collect(),
                ..Inspection::default()
            };
            of_frr(&frr, true)
        };
        use Answer::{Answers, Denied, Down, Silent};
        let silent = || Silent("it is stopped".into());
        let good = SignState::Good("zebra, bgpd, ospfd answer".into());
        assert_eq!(of([Answers, Answers, Answers, Down]), good);
        assert_eq!(
            of([Answers, Down, silent(), Answers]),
            SignState::Bad("bgpd does not run, ospfd does not answer".into())
        );
        let unknown = SignState::Unknown("zebra could not be asked".into());
        assert_eq!(of([Denied, Answers, Answers, Answers]), unknown);
    }
}
