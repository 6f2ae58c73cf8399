//! Pure: the export route targets of each VNI, by which the list filter tells VNIs apart.

use crate::model::types::Vni;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The export route targets that bgpd names, by VNI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Targets {
    by_vni: BTreeMap<Vni, Vec<String>>,
    by_target: BTreeMap<String, Vec<Vni>>,
    /// VNIs that carry the routes of a VRF (L3VNIs).
    layer3: BTreeSet<Vni>,
}

impl Targets {
    /// Whether bgpd knows `vni`.
    pub fn knows(&self, vni: Vni) -> bool {
        self.by_vni.contains_key(&vni)
    }

    /// Whether `vni` carries the routes of a VRF: then its route target is on the type-2 routes of every VNI of
    /// that VRF (RFC 9135 section 5.2), and does not tell it from them.
    pub fn is_layer3(&self, vni: Vni) -> bool {
        self.layer3.contains(&vni)
    }

    /// The export route targets of `vni`; for one that bgpd does not know yet those that it will derive:
    /// `<AS & 0xffff>:<VNI>` (`form_auto_rt` in FRR's bgpd/bgp_evpn.c).
    pub fn of(&self, vni: Vni, asn: u32) -> Vec<String> {
        match self.by_vni.get(&vni) {
            Some(targets) => targets.clone(),
            None => vec![format!("{}:{vni}", asn & 0xffff)],
        }
    }

    /// Another VNI whose routes carry all of `targets` too, so that a filter for those lets both out.
    pub fn also_carried_by(&self, targets: &[String], vni: Vni) -> Option<Vni> {
        let (first, rest) = targets.split_first()?;
        let carriers = |target: &String| self.by_target.get(target).map_or(&[][..], Vec::as_slice);
        let in_rest = |other: &Vni| rest.iter().all(|target| carriers(target).contains(other));
        carriers(first)
            .iter()
            .copied()
            .find(|other| *other != vni && in_rest(other))
    }
}

/// Reads `show bgp l2vpn evpn vni json`. Members that are not VNIs and VNIs without usable targets are
/// stepped over.
///
/// # Errors
/// The text is not JSON, or not an object: bgpd's answer then is a complaint, returned as it is.
pub fn parse_targets(text: &str) -> Result<Targets, String> {
    // vtysh may write remarks of its own first (a missing vtysh.conf).
    let json = text.find('{').map_or("", |start| &text[start..]);
    let Ok(Value::Object(members)) = serde_json::from_str(json) else {
        return Err(text.chars().take(200).collect());
    };
    let mut targets = Targets::default();
    for (key, member) in &members {
        let Ok(vni) = key.parse::<Vni>() else {
            continue;
        };
        if member.get("type").and_then(Value::as_str) == Some("L3") {
            targets.layer3.insert(vni);
        }
        let Some(exported) = member.get("exportRTs").and_then(Value::as_array) else {
            continue;
        };
        let mut exported: Vec<String> = exported
            .iter()
            .filter_map(Value::as_str)
            .filter(|target| is_target(target))
            .map(str::to_string)
            .collect();
        exported.sort();
        exported.dedup();
        if exported.is_empty() {
            continue;
        }
        for target in &exported {
            let carriers = targets.by_target.entry(target.clone()).or_default();
            carriers.push(vni);
        }
        targets.by_vni.insert(vni, exported);
    }
    Ok(targets)
}

/// `<AS or IPv4 address>:<number>`. It goes into a script, so nothing else may pass.
fn is_target(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once(':') {
        Some((administrator, number)) => administrator.split('.').all(digits) && digits(number),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// FRR 8.4.4, shortened; VNI 6 with two configured targets, 7 sharing one of them.
    const JSON: &str = r#"{
  "advertiseGatewayMacip":"Disabled",
  "advertiseSviMacIp":"Enabled",
  "advertiseAllVnis":"Enabled",
  "flooding":"Head-end replication",
  "numVnis":3,
  "9":{
    "vni":9,
    "type":"L2",
    "inKernel":"True",
    "rd":"10.0.0.1:10",
    "importRTs":[
      "65000:9"
    ],
    "exportRTs":[
      "65000:9"
    ]
  },
  "6":{"vni":6,"exportRTs":["65000:6","10.0.0.1:77"]},
  "7":{"vni":7,"exportRTs":["10.0.0.1:77"]},
  "1000":{"vni":1000,"type":"L3","exportRTs":["65000:1000"]},
  "8":{"vni":8,"exportRTs":["65000:8 rt 1:1\nexit",5,"",":","1:"]}
}"#;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn targets_as_8_4_4_names_them() {
        let targets = parse_targets(JSON).unwrap();
        assert_eq!(targets.of(vni(9), 65000), ["65000:9"]);
        assert_eq!(targets.of(vni(6), 65000), ["10.0.0.1:77", "65000:6"]);
        assert!(targets.knows(vni(6)));
        assert!(targets.is_layer3(vni(1000)) && !targets.is_layer3(vni(9)));
        // Not known, and nothing usable: derived, from the low 16 bits of the AS number.
        assert!(!targets.knows(vni(8)));
        assert_eq!(targets.of(vni(8), 0x1_000A), ["10:8"]);
    }

    #[test]
    fn a_shared_target_is_noticed_where_it_would_leak() {
        let targets = parse_targets(JSON).unwrap();
        let carrier = |number| {
            let of = targets.of(vni(number), 65000);
            targets.also_carried_by(&of, vni(number))
        };
        assert_eq!(carrier(6), None, "7 lacks one of the two");
        assert_eq!(carrier(7), Some(vni(6)));
        assert_eq!(carrier(9), None);
    }

    #[test]
    fn a_complaint_is_no_answer() {
        assert!(parse_targets("% BGP instance not found\n").is_err());
        assert!(parse_targets("").is_err());
        assert_eq!(parse_targets("% remark\n{}"), Ok(Targets::default()));
    }
}
