//! Addresses of bridges that zebra has missed.
//!
//! When many bridges are created at once, the kernel's notifications do not fit into zebra's socket, and zebra never
//! asks for what it lost (FRR 8.4.4: 3 to 34 of 295 addresses, for ever). Such a VNI has no type-2 route of the
//! gateway's IPv4 address and no OSPF network. wmgwd has the kernel tell of the address again.

use super::run::{Daemon, Vtysh};
use crate::host::Error;
use crate::host::address::Address;
use crate::host::addresses;
use crate::host::links::Bridges;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::spans;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// How often zebra is told of an address that it does not take.
const TRIES: u32 = 3;

/// What zebra was told again.
#[derive(Debug, Default)]
pub struct Missed {
    /// By interface index and address, how often.
    tries: BTreeMap<(u32, IpAddr), u32>,
}

impl Missed {
    /// Compares the addresses that zebra has for the bridges of `range` with the kernel's, and has the kernel
    /// tell of those that zebra lacks.
    ///
    /// # Errors
    /// The kernel or zebra did not say.
    pub fn make_up(&mut self, vtysh: &Vtysh, range: VniRange) -> Result<(), Error> {
        let wanted = wanted(range).map_err(|source| Error::Links { source })?;
        if wanted.is_empty() {
            return Ok(());
        }
        let text = match vtysh.show(Daemon::Zebra, "show interface brief json") {
            Ok(text) => text,
            // This version has no such command.
            Err(Error::Refused { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let known = parse_known(&text);
        if known.is_empty() {
            return Ok(());
        }
        let is_missed = |(vni, address): &(Vni, Address)| {
            let shown = format!("{}/{}", address.ip, address.prefix);
            match known.get(&vni.bridge()) {
                Some(addresses) => {
                    let listed = addresses.as_ref();
                    listed.is_some_and(|addresses| !addresses.contains(&shown))
                }
                // zebra has missed the bridge itself.
                None => true,
            }
        };
        let missed: Vec<(Vni, Address)> = wanted.into_iter().filter(is_missed).collect();
        let is_missed =
            |key: &(u32, IpAddr)| missed.iter().any(|(_, it)| (it.index, it.ip) == *key);
        self.tries.retain(|key, _| is_missed(key));
        if missed.is_empty() {
            return Ok(());
        }
        // Only what is there at this moment: telling of an address that was taken away would add it.
        let there = addresses::dump().map_err(|source| Error::Links { source })?;
        let (mut told, mut given_up) = (BTreeSet::new(), BTreeSet::new());
        for (vni, missed) in &missed {
            // Its lifetime may have gone on since the first look.
            let same = |it: &&Address| {
                (it.index, it.ip, it.prefix) == (missed.index, missed.ip, missed.prefix)
            };
            let Some(address) = there.iter().find(same) else {
                continue;
            };
            let tries = self.tries.entry((address.index, address.ip)).or_default();
            *tries += 1;
            if *tries > TRIES {
                // Logged once.
                if *tries == TRIES + 1 {
                    given_up.insert(*vni);
                }
                continue;
            }
            match addresses::tell_again(address) {
                Ok(()) => drop(told.insert(*vni)),
                Err(source) => log::debug!("vni={vni} cannot tell of {}: {source}", address.ip),
            }
        }
        if !told.is_empty() {
            let vnis: Vec<Vni> = told.into_iter().collect();
            log::warn!(
                "FRR: vnis={}: zebra had missed addresses of their bridges: told again",
                spans(&vnis)
            );
        }
        if !given_up.is_empty() {
            let vnis: Vec<Vni> = given_up.into_iter().collect();
            log::warn!(
                "FRR: vnis={}: zebra does not take addresses of their bridges: restart FRR",
                spans(&vnis)
            );
        }
        Ok(())
    }
}

/// The addresses of the gateway's bridges in `range` that zebra shows: all but link-local ones.
fn wanted(range: VniRange) -> io::Result<Vec<(Vni, Address)>> {
    let bridges = Bridges::default();
    let mut of_index = BTreeMap::new();
    for vni in bridges.vnis(range)? {
        let (bridge, _) = bridges.find(vni)?;
        of_index.extend(bridge.index().map(|index| (index, vni)));
    }
    let is_shown = |address: &Address| match address.ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let addresses = addresses::dump()?.into_iter().filter(is_shown);
    let of_bridges = addresses.filter_map(|it| Some((*of_index.get(&it.index)?, it)));
    Ok(of_bridges.collect())
}

/// Reads `show interface brief json`: the addresses of each interface; `None` if they are told in another form.
fn parse_known(text: &str) -> BTreeMap<String, Option<BTreeSet<String>>> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let interfaces = json.as_object().into_iter().flatten();
    let addresses = |interface: &Value| -> Option<BTreeSet<String>> {
        let list = interface.get("addresses")?.as_array()?;
        let word = |address: &Value| Some(address.as_str()?.split_whitespace().next()?.to_owned());
        list.iter().map(word).collect()
    };
    interfaces
        .map(|(name, interface)| (name.clone(), addresses(interface)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FRR 8.4.4, `vtysh -d zebra -c 'show interface brief json'`, shortened.
    #[test]
    fn what_zebra_knows() {
        let text = r#"{"br1":{"status":"up","vrfName":"default","addresses":["10.1.1.1/24","fd00:1::1/64"]},
            "br2":{"status":"up","vrfName":"default","addresses":[]},
            "br3":{"status":"up","addresses":[{"address":"10.1.3.1/24"}]}}"#;
        let known = parse_known(text);
        let set = |all: &[&str]| Some(all.iter().map(|it| it.to_string()).collect());
        let expected = [
            ("br1".to_owned(), set(&["10.1.1.1/24", "fd00:1::1/64"])),
            ("br2".to_owned(), set(&[])),
            ("br3".to_owned(), None),
        ];
        assert_eq!(known, BTreeMap::from(expected));
        assert_eq!(parse_known("% Unknown command"), BTreeMap::new());
    }
}
