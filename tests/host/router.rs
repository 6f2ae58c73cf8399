//! A gateway with a real FRR (zebra, bgpd, ospfd), and an access point's bgpd that hears it.

use crate::namespace::{eventually, sh, try_sh};
use std::collections::BTreeSet;

/// What a test needs to be installed.
pub const PROGRAMS: &[&str] = &[
    "ip",
    "vtysh",
    "nsenter",
    "/usr/lib/frr/zebra",
    "/usr/lib/frr/bgpd",
];

/// The configuration that the original project documents: without a closing deny.
pub const DOCUMENTED: &str = "
router bgp 65000
 bgp router-id 10.0.0.1
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor fabric remote-as 65000
 neighbor 10.0.0.2 peer-group fabric
 address-family l2vpn evpn
  neighbor fabric activate
  neighbor fabric route-map filter-vni out
  advertise-all-vni
  advertise-svi-ip
 exit-address-family
router ospf
 ospf router-id 10.0.0.1
 network 0.0.0.0/0 area 0.0.0.0
route-map filter-vni permit 1
 match evpn route-type 2
 on-match goto 4
route-map filter-vni permit 2
 match evpn route-type 5
 on-match goto 4
route-map filter-vni permit 3
";

const ACCESS_POINT: &str = "
router bgp 65000
 bgp router-id 10.0.0.2
 no bgp default ipv4-unicast
 neighbor 10.0.0.1 remote-as 65000
 neighbor 10.0.0.1 timers connect 1
 address-family l2vpn evpn
  neighbor 10.0.0.1 activate
 exit-address-family
";

/// Brings up VNIs 1 to `vnis` and FRR with the documented configuration, which leaks them all; waits until
/// they are heard.
pub fn start(vnis: u32) {
    start_with(vnis, DOCUMENTED);
    eventually("all VNIs leaked", || advertised().len() == vnis as usize);
}

/// Brings up VNIs 1 to `vnis` and FRR with `config` in this process's namespaces, and waits for the access
/// point to have heard of all VNIs.
pub fn start_with(vnis: u32, config: &str) {
    sh("mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /etc/frr; mount -t tmpfs tmpfs /var/tmp
        mount -t sysfs sysfs /sys
        mkdir -p /run/frr/ap /run/netns /var/tmp/frr; chown frr /run/frr /run/frr/ap /etc/frr /var/tmp/frr
        echo 'service integrated-vtysh-config' > /etc/frr/vtysh.conf
        ip link set lo up; ip address add 10.255.0.1/32 dev lo
        ip netns add ap; ip link add up0 type veth peer name gw0 netns ap
        ip address add 10.0.0.1/24 dev up0; ip link set up0 up
        ip -n ap address add 10.0.0.2/24 dev gw0; ip -n ap link set gw0 up; ip -n ap link set lo up");
    let links: String = (1..=vnis)
        .map(|i| {
            let (high, low) = (16 + i / 256, i % 256);
            format!(
                "link add br{i} type bridge\n\
                 link add vxlan{i} type vxlan id {i} local 10.0.0.1 dstport 4789 nolearning\n\
                 link set vxlan{i} master br{i}\naddr add 10.{high}.{low}.1/24 dev br{i}\n\
                 link set br{i} up\nlink set vxlan{i} up\n"
            )
        })
        .collect();
    std::fs::write("/run/links", links).unwrap();
    std::fs::write("/etc/frr/frr.conf", config).unwrap();
    std::fs::write("/etc/frr/ap.conf", ACCESS_POINT).unwrap();
    sh(
        "ip -batch /run/links
        /usr/lib/frr/zebra -d -A 127.0.0.1 -s 90000000
        nsenter --net=/run/netns/ap /usr/lib/frr/bgpd -d -N ap -Z -A 127.0.0.1 -f /etc/frr/ap.conf",
    );
    start_daemon("bgpd");
    start_daemon("ospfd");
    eventually("all VNIs heard of", || heard_type_3() == vnis as usize);
}

/// Starts a daemon with the startup configuration.
pub fn start_daemon(daemon: &str) {
    sh(&format!(
        // Lines for other daemons are refused, and make the exit status useless.
        "/usr/lib/frr/{daemon} -d -A 127.0.0.1; vtysh -b -d {daemon} || true"
    ));
}

/// Sends a signal to a daemon and waits until it took effect.
pub fn signal(daemon: &str, signal: &str) {
    let pid = sh(&format!("cat /run/frr/{daemon}.pid")).trim().to_string();
    sh(&format!("kill -{signal} {pid}"));
    eventually(signal, || {
        let state = try_sh(&format!("awk '{{ print $3 }}' /proc/{pid}/stat")).1;
        match (signal, state.trim()) {
            ("STOP", state) => state == "T",
            ("CONT", state) => state != "T",
            (_, "") => true,
            // A process with threads is a zombie before the last of them has closed its files.
            (_, "Z") => try_sh(&format!("ls /proc/{pid}/task | wc -l")).1.trim() == "1",
            _ => false,
        }
    });
}

/// The VNIs of which the access point has a type-2 route, by their automatic route targets.
pub fn advertised() -> BTreeSet<u32> {
    let routes = sh("vtysh -N ap -d bgpd -c 'show bgp l2vpn evpn route type macip' 2>/dev/null");
    let targets = routes
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("RT:65000:"));
    targets.filter_map(|vni| vni.parse().ok()).collect()
}

/// How many type-3 routes the access point has.
pub fn heard_type_3() -> usize {
    let routes =
        sh("vtysh -N ap -d bgpd -c 'show bgp l2vpn evpn route type multicast' 2>/dev/null");
    routes.matches("[3]:[0]:").count()
}

/// The cost that ospfd uses on the bridge of a VNI.
pub fn cost(vni: u32) -> Option<u64> {
    let text = sh(&format!(
        "vtysh -d ospfd -c 'show ip ospf interface br{vni} json'"
    ));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["interfaces"][format!("br{vni}")]["cost"].as_u64()
}

/// The running configuration of one daemon.
pub fn running_config(daemon: &str) -> String {
    sh(&format!("vtysh -d {daemon} -c 'show running-config'"))
}

/// Feeds configuration to one daemon, as an operator would.
pub fn configure(daemon: &str, lines: &str) {
    std::fs::write("/run/lines", lines).unwrap();
    sh(&format!("vtysh -d {daemon} -f /run/lines"));
}
