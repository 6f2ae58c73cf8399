//! Pure: what the signs say of this host's links and neighbours, by which its rank among the gateways is decided.

use super::Finding;
use crate::model::fitness::{Sign, SignState};

/// One finding for each sign.
pub fn findings(signs: &[(Sign, SignState)]) -> impl Iterator<Item = Finding> + '_ {
    signs.iter().map(|(sign, state)| match state {
        SignState::Good(what) => Finding::ok(sign.name(), what.as_str()),
        // A laboratory has no upstream router, and a gateway that has just started no neighbour yet.
        SignState::Unknown(why) => Finding::ok(sign.name(), format!("not judged: {why}")),
        SignState::Bad(why) => Finding::fail(
            sign.name(),
            format!("{why}: this gateway gives its VNIs to a better one"),
            remedy(*sign),
        ),
    })
}

fn remedy(sign: Sign) -> &'static str {
    match sign {
        Sign::FabricLink | Sign::UplinkLink => {
            "repair cable and switch port, and switch the interface on (ip link set IF up); or name the right ones \
             with --track-fabric and --track-uplink"
        }
        Sign::Evpn => "vtysh -c 'show bgp l2vpn evpn summary' says which sessions are down",
        Sign::Ospf => "vtysh -c 'show ip ospf neighbor' says which adjacencies are not full",
        Sign::Frr => "systemctl status frr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    #[test]
    fn every_sign_is_named_and_only_a_bad_one_fails() {
        let signs = [
            (
                Sign::FabricLink,
                SignState::Bad("eth0 has no carrier".into()),
            ),
            (Sign::Evpn, SignState::Unknown("FRR does not answer".into())),
            (Sign::Ospf, SignState::Good("2 OSPF neighbours full".into())),
        ];
        let found: Vec<Finding> = findings(&signs).collect();
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Ok, Level::Ok]);
        let abouts: Vec<&str> = found.iter().map(|it| it.about).collect();
        assert_eq!(abouts, ["fabric-link", "evpn", "ospf"]);
        assert_eq!(found[1].text, "not judged: FRR does not answer");
        assert!(found[0].text.starts_with("eth0 has no carrier: "));
    }
}
