//! Collects what `wmgwd check` judges. Only looks, but for one short lease in etcd, which it revokes.

use super::database::{Database, Registered, Trial};
use super::links::{self, Links};
use super::look_beats::look_at_beats;
use super::look_passage::look_at_passage;
use super::refusal::Refusal;
use super::system::{self, System};
use super::{Facts, Finding};
use crate::cli::CheckConfig;
use crate::etcd::{Client, Compare, Error, KeyValue, Op, Renewal, Txn};
use crate::guard::address::Address;
use crate::host::addresses;
use crate::host::filters;
use crate::host::frr::FrrConfig;
use crate::host::frr::inspect::inspect;
use crate::host::garp::packet_socket;
use crate::host::links::dump;
use crate::host::nft::wire::Family;
use crate::host::nft::{self, KernelLease};
use crate::host::routes::Prefix;
use crate::host::signs::{SignReader, Tracked};
use crate::model::purpose::Purpose;
use crate::model::types::{NodeName, Revision, Vni, VniRange};
use crate::schema::{self, Key, Value};
use crate::sys::{clock, memory};
use crate::telemetry::log_text::chain;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Where the kernel's switches for IPv4 are.
const IPV4: &str = "/proc/sys/net/ipv4";

const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// Looks at what `config` says: this host, unless it is left out, and etcd.
pub fn look(config: &CheckConfig) -> Facts {
    let mut facts = match config.mock {
        true => Facts::default(),
        false => host(config),
    };
    let (etcd, client) = database(config);
    facts.etcd = Some(etcd);
    let me = config.purpose.name.as_ref();
    // The finding about etcd says that its keys cannot be read.
    facts.beats = client.and_then(|client| look_at_beats(me, &client).ok()?);
    facts
}

/// What a daemon says at its start: what on this host defeats its ARP switch or its announcements.
pub fn at_start(range: VniRange) -> Vec<Finding> {
    let links = Links {
        interfaces: dump().unwrap_or_default(),
        ..Links::default()
    };
    let mut findings: Vec<Finding> = arp_ignore_of_all().into_iter().collect();
    findings.extend(links::neigh_suppress(range, &links));
    findings
}

/// What is wrong with `arp_ignore` of all interfaces.
pub fn arp_ignore_of_all() -> Option<Finding> {
    number(&Path::new(IPV4).join("conf/all/arp_ignore")).and_then(system::arp_ignore_of_all)
}

/// Looks at this host: its kernel and its FRR.
fn host(config: &CheckConfig) -> Facts {
    let purpose = &config.purpose;
    let tracked = Tracked {
        fabric: config.track_fabric.clone(),
        uplink: config.track_uplink.clone(),
    };
    let links = look_at_links();
    let frr = FrrConfig {
        filter: purpose.filter,
        ..FrrConfig::new(purpose.range)
    };
    let run_dirs = frr.run_dirs.clone();
    let frr = inspect(&frr);
    Facts {
        system: Some(look_at_system(purpose.range, &links)),
        passage: Some(look_at_passage(purpose, &links, &frr)),
        frr: Some(frr),
        signs: SignReader::new(&run_dirs, purpose.range, tracked)
            .look()
            .to_vec(),
        track: config.track,
        halves: halves(purpose.range),
        links: Some(links),
        etcd: None,
        beats: None,
    }
}

/// The halves of each bridge's networks. Link-local addresses are not announced.
fn halves(range: VniRange) -> BTreeMap<Vni, BTreeSet<Prefix>> {
    let mut halves: BTreeMap<Vni, BTreeSet<Prefix>> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let ip = |it: Option<SockaddrStorage>| {
            let it = it?;
            let four = it.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            four.or_else(|| Some(it.as_sockaddr_in6()?.ip().into()))
        };
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        let vni = Vni::of_bridge(name).filter(|vni| range.contains(*vni));
        let (Some(vni), Some(address), Some(mask)) = (vni, ip(entry.address), ip(entry.netmask))
        else {
            continue;
        };
        let length = match (address, mask) {
            (IpAddr::V4(address), _) if address.is_link_local() => continue,
            (IpAddr::V6(address), _) if address.is_unicast_link_local() => continue,
            (_, IpAddr::V4(mask)) => u32::from(mask).leading_ones(),
            (_, IpAddr::V6(mask)) => u128::from(mask).leading_ones(),
        };
        let prefix = u8::try_from(length)
            .ok()
            .and_then(|length| Prefix::new(address, length));
        let found = prefix.and_then(Prefix::halves).into_iter().flatten();
        halves.entry(vni).or_default().extend(found);
    }
    halves
}

fn look_at_links() -> Links {
    let mut links = Links::default();
    match dump() {
        Ok(interfaces) => links.interfaces = interfaces,
        Err(error) => links.refused = Some(error.to_string()),
    }
    if links.interfaces.iter().any(|it| it.filters_vlans) {
        // What cannot be asked for reads as no VLAN at all, and is named.
        links.vlans = filters::vlans().unwrap_or_default();
    }
    // What cannot be asked for is not complained of.
    let all = addresses::dump().unwrap_or_default();
    for address in all.into_iter().filter(|it| it.ip.is_ipv6()) {
        let of = links.ipv6.entry(address.index).or_default();
        of.push(address);
    }
    links.keepers = links
        .interfaces
        .iter()
        .filter(|it| links.ipv6.contains_key(&it.index))
        .filter(|it| {
            let keeps = |name: &str| number(&Path::new(IPV6).join(name).join("keep_addr_on_down"));
            // 0 here leaves it to `all` (addrconf_ifdown() in Linux's net/ipv6/addrconf.c).
            match keeps(&it.name) {
                Some(0) | None => keeps("all").is_some_and(|value| value > 0),
                Some(_) => true,
            }
        })
        .map(|it| it.name.clone())
        .collect();
    for entry in getifaddrs().into_iter().flatten() {
        let Some(address) = entry.address else {
            continue;
        };
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(address), _) => IpAddr::V4(address.ip()),
            (_, Some(address)) => IpAddr::V6(address.ip()),
            _ => continue,
        };
        // A label (`br7:1`) takes the place of the name of the interface of a labelled address.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        links.addresses.push((name.to_owned(), address));
    }
    links
}

/// Whether the kernel can hold the lease. The table that would do so is not made for that.
fn kernel_lease() -> Result<(), nft::Error> {
    let mut table = KernelLease::open()?;
    match table.find()? {
        nft::Found::Foreign => Err(nft::Error::Foreign),
        // A kernel without nf_tables for ARP has no such table, like any other.
        nft::Found::Absent => table.try_to_make(Family::Arp),
        nft::Found::Damaged | nft::Found::Whole { .. } => Ok(()),
    }
}

/// Whether the kernel can switch IPv6, if there is something to be switched.
fn ipv6_switch(range: VniRange) -> Result<(), nft::Error> {
    match addresses::look_for_ipv6(range) {
        Ok(ipv6) if !ipv6.bridges.is_empty() => KernelLease::open()?.try_to_make(Family::Ip6),
        _ => Ok(()),
    }
}

fn look_at_system(range: VniRange, links: &Links) -> System {
    let ipv4 = Path::new(IPV4);
    let arp_ignore = |interface: &str| ipv4.join("conf").join(interface).join("arp_ignore");
    let of_bridge = |vni: Vni| Some((vni, number(&arp_ignore(&vni.bridge()))?));
    let writable = OpenOptions::new().write(true).open(arp_ignore("default"));
    System {
        memory: memory::may_lock().err(),
        gate: kernel_lease().err().map(|error| {
            let remedy = match error {
                nft::Error::Unsupported(_) => "modprobe nf_tables, or on OpenWrt: opkg install kmod-nft-arp",
                nft::Error::Foreign => "nft delete table arp wmgwd",
                _ => "run this as the daemon will run: as root, or with CAP_NET_ADMIN and CAP_NET_RAW",
            };
            (chain(&error), remedy)
        }),
        ipv6: ipv6_switch(range).err().map(|error| chain(&error)),
        arp_ignore_all: number(&arp_ignore("all")),
        arp_ignore: links
            .bridges(range)
            .into_iter()
            .filter_map(of_bridge)
            .collect(),
        forwards: number(&ipv4.join("ip_forward")),
        neighbours: number(&ipv4.join("neigh/default/gc_thresh3")),
        sysctl: writable.err().map(|error| error.to_string()),
        packets: packet_socket()
            .err()
            .map(|errno| io::Error::from(errno).to_string()),
        guards: Address::guards(),
    }
}

/// The number in a file.
fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Looks at etcd through `client`, and at each member by itself through one of `members`. `timeout` is how long
/// one call may take. With a client, if etcd answers.
fn database(config: &CheckConfig) -> (Database, Option<Client>) {
    let (purpose, timeout) = (&config.purpose, config.timing.etcd_timeout);
    let mut database = Database {
        timeout,
        warnings: config.etcd.warnings(),
        ..Database::default()
    };
    let client = Client::open(&config.etcd, timeout).map_err(|error| Refusal::from(&error));
    for endpoint in &config.etcd.endpoints {
        let status = client.as_ref().map_err(Refusal::clone).and_then(|client| {
            let member = client.only(endpoint.clone());
            let mut status = member.status().map_err(|error| Refusal::from(&error))?;
            // etcd before 3.6 tells it in its metrics alone.
            status.quota = status.quota.or_else(|| member.quota());
            Ok(status)
        });
        database.members.push((endpoint.to_string(), status));
    }
    let Ok(client) = client else {
        return (database, None);
    };
    // Each of these would take all endpoints' deadlines to say the same again.
    if database.members.iter().all(|(_, status)| status.is_err()) {
        return (database, None);
    }
    database.lease = Some(try_lease(purpose, &client).map_err(|error| Refusal::from(&error)));
    database.voters = client.voters().ok();
    database.write = client
        .txn(&never(purpose))
        .err()
        .map(|error| Refusal::from(&error));
    database.nodes = Some(nodes(&client).map_err(|error| Refusal::from(&error)));
    (database, Some(client))
}

/// Gets a lease as the node would, renews it once, and gives it back.
fn try_lease(purpose: &Purpose, client: &Client) -> Result<Trial, Error> {
    let begun = clock::now();
    let grant = client.lease_grant(purpose.ttl)?;
    let granted = clock::now();
    let renewed = client.lease_renew(grant.id, schema::PREFIX);
    let done = clock::now();
    // Whatever it did: it ends by itself, but not before its time.
    client.lease_revoke(grant.id)?;
    Ok(Trial {
        granted: grant.ttl,
        renewed: match renewed? {
            Renewal::Held(ttl) => Some(ttl),
            // The new leader gives every lease its whole time again.
            Renewal::LeaderChanged => Some(grant.ttl),
            Renewal::Gone => None,
        },
        slowest: granted.since(begun).max(done.since(granted)),
    })
}

/// A transaction that would write what the node writes, under a condition that never holds: etcd asks first
/// whether the user may write there (`checkTxnAuth` in etcd's server/etcdserver/apply_auth.go).
fn never(purpose: &Purpose) -> Txn {
    let key = Key::Kind(purpose.range.first()).bytes();
    let put = |key| Op::Put {
        key,
        value: Vec::new(),
        lease: None,
    };
    let name = purpose.name.clone();
    Txn {
        compares: vec![Compare::ModRevisionLess {
            key: key.clone(),
            than: Revision(0),
        }],
        then: [Some(key), name.map(|name| Key::Node(name).bytes())]
            .into_iter()
            .flatten()
            .map(put)
            .collect(),
        otherwise: Vec::new(),
    }
}

fn nodes(client: &Client) -> Result<BTreeMap<NodeName, Registered>, Error> {
    let mut nodes = BTreeMap::new();
    for kv in client.range(schema::NODES)?.kvs {
        if let Ok(Key::Node(name)) = Key::read(&kv.key) {
            let lives = kv.lease.is_some();
            nodes.insert(name, Registered { lives, meta: None });
        }
    }
    for kv in client.range(schema::METAS)?.kvs {
        if let Some((name, meta)) = read_meta(&kv)
            && let Some(node) = nodes.get_mut(&name)
        {
            node.meta = Some(meta);
        }
    }
    Ok(nodes)
}

fn read_meta(kv: &KeyValue) -> Option<(NodeName, schema::Meta)> {
    let key = Key::read(&kv.key).ok()?;
    match (schema::read_value(&key, &kv.value).0, key) {
        (Value::Meta(meta), Key::Meta(name)) => Some((name, meta)),
        _ => None,
    }
}
