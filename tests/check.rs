//! `wmgwd check` on a gateway of the lab (`contrib/lab`): it passes, and each thing that is broken is named, with
//! the command that repairs it. Where that command can be run as it stands, it is what repairs the lab again.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "lab/network.rs"]
mod network;

use network::{Lab, eventually, points};
use serde_json::Value;

const ETCD: &str = "--etcd=http://10.0.3.100:2379,http://10.0.3.100:2379";

const ONE_MEMBER: &str = "this etcd is a cluster of one: when it fails, every gateway is fenced, and a gateway with another etcd owns \
    every VNI as well";

/// What a check says that is not `ok`: level, text, remedy; and its exit status.
struct Said {
    status: String,
    findings: Vec<(String, String, String)>,
}

/// Runs `wmgwd check` on a gateway: its exit status and what it finds.
fn findings(lab: &Lab, node: &str, options: &[&str]) -> (String, Vec<Value>) {
    let exe = env!("CARGO_BIN_EXE_wmgwd");
    let mut command = vec!["sh", "-c", "\"$@\"; echo status=$?", "sh", exe, "check"];
    command.extend(["--maxvni=3", "--json"]);
    command.extend(options);
    let text = lab.ask(node, &command);
    let (json, status) = text
        .split_once("\nstatus=")
        .unwrap_or_else(|| panic!("{text}"));
    let json: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{text}"));
    let findings = json["findings"].as_array().unwrap().clone();
    (status.trim().to_owned(), findings)
}

/// Level, text and remedy of a finding.
fn words(finding: &Value) -> (String, String, String) {
    let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (word("level"), word("text"), word("remedy"))
}

/// Runs `wmgwd check` on gw1.
fn check(lab: &Lab, options: &[&str]) -> Said {
    let (status, findings) = findings(lab, "gw1", options);
    Said {
        status,
        findings: findings
            .iter()
            .filter(|finding| finding["level"] != "ok")
            // The lab has one member; all that is tested here is beside that.
            .filter(|finding| finding["text"] != ONE_MEMBER)
            .map(words)
            .collect(),
    }
}

fn usual(lab: &Lab) -> Said {
    check(lab, &["--name=gw1", ETCD])
}

fn shell(lab: &Lab, command: &str) {
    let said = lab.ask(
        "gw1",
        &["sh", "-c", &format!("{{ {command}; }} && echo done")],
    );
    assert!(said.contains("done"), "{command}: {said}");
}

/// Configures FRR line by line, as the repairs do.
fn frr(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("-c '{line}'")).collect();
    format!("vtysh -c 'configure terminal' {}", lines.join(" "))
}

const EVPN: [&str; 2] = ["router bgp 65000", "address-family l2vpn evpn"];

fn evpn(line: &str) -> String {
    frr(&[EVPN[0], EVPN[1], line])
}

/// Rules of a firewall: a chain, with the family and name of its table, and what is in it.
fn nft(chain: &str, rules: &[&str]) -> String {
    let words: Vec<&str> = chain.split(' ').collect();
    let place = words[1..4].join(" ");
    let rules: Vec<String> = rules
        .iter()
        .map(|it| format!("add rule {place} {it}"))
        .collect();
    let table = format!("add table {} {}", words[1], words[2]);
    format!("nft '{table}; add {chain}; {}'", rules.join("; "))
}

/// How a breakage is repaired.
enum Mend {
    /// By the command that the check itself names.
    AsTold,
    /// By this.
    By(String),
}

/// Each breakage: what breaks it, what must be said (level, part of the text), what repairs it.
fn breakages() -> Vec<(String, &'static str, &'static str, Mend)> {
    use Mend::{AsTold, By};
    let vxlan = |id: u32, then: &str| {
        format!(
            "ip link delete vxlan3 && ip link add vxlan3 type vxlan id {id} local 10.0.1.11 dstport 4789 nolearning \
             && ip link set vxlan3 master br3 up && bridge link set dev vxlan3 learning off {then}"
        )
    };
    let of = |command: &str| command.to_owned();
    let file = |command: &str| format!("cp /etc/frr/frr.conf /run/saved && {command}");
    let flush = || By(of("nft flush ruleset"));
    let ipv6 = || {
        of(
            "sysctl -qw net.ipv6.conf.br1.keep_addr_on_down=1; ip address add fe80::1/64 dev br1 nodad",
        )
    };
    let no_ipv6 = || of("ip address del fe80::1/64 dev br1");
    let back = || By(of("cat /run/saved >/etc/frr/frr.conf"));
    vec![
        // FRR's files.
        (
            of("echo 'banner nonsense' >>/etc/frr/vtysh.conf"),
            "warn",
            "of /etc/frr/vtysh.conf: % Unknown command",
            AsTold,
        ),
        // The kernel.
        (
            of("sysctl -qw net.ipv4.conf.all.arp_ignore=8"),
            "fail",
            "net.ipv4.conf.all.arp_ignore=8 keeps",
            AsTold,
        ),
        (
            of("sysctl -qw net.ipv4.conf.br2.arp_ignore=3"),
            "warn",
            "answers ARP although no wmgwd runs here, and would after a boot: VNIs 2",
            AsTold,
        ),
        (
            of("sysctl -qw net.ipv4.ip_forward=0"),
            "fail",
            "net.ipv4.ip_forward=0",
            AsTold,
        ),
        (
            of("for i in 1 2 3; do bridge link set dev vxlan$i neigh_suppress on; done"),
            "fail",
            "using a dead gateway: VNIs 1-3",
            AsTold,
        ),
        (
            of("bridge link set dev vxlan3 learning on"),
            "warn",
            "the bridge learns at vxlan<VNI>, against what EVPN says: VNIs 3",
            AsTold,
        ),
        (
            of("ip link set vxlan2 type vxlan learning"),
            "warn",
            "vxlan<VNI> itself learns",
            AsTold,
        ),
        (
            of("ip link set br2 down"),
            "fail",
            "br<VNI> is down: VNIs 2",
            AsTold,
        ),
        (
            of("ip link set vxlan1 down && ip link set vxlan2 down"),
            "fail",
            "vxlan<VNI> is down: VNIs 1-2",
            AsTold,
        ),
        (
            of("ip link set vxlan1 nomaster"),
            "fail",
            "vxlan<VNI> is not in br<VNI>: VNIs 1",
            By(of(
                "ip link set vxlan1 master br1 && bridge link set dev vxlan1 learning off",
            )),
        ),
        (
            vxlan(33, ""),
            "fail",
            "carries another VNI, or is no VXLAN interface: VNIs 3",
            By(vxlan(3, "")),
        ),
        (
            of("ip link delete vxlan3"),
            "fail",
            "br<VNI> is there and vxlan<VNI> is not: VNIs 3",
            By(vxlan(3, "").replace("ip link delete vxlan3 &&", "")),
        ),
        (
            of("ip address del 10.64.2.1/24 dev br2"),
            "fail",
            "br<VNI> has no IPv4 address: VNIs 2",
            By(of("ip address add 10.64.2.1/24 dev br2")),
        ),
        (
            of("ip address add 10.64.1.1/32 dev br2"),
            "fail",
            "10.64.1.1 is on the bridges of several VNIs: 1-2",
            By(of("ip address del 10.64.1.1/32 dev br2")),
        ),
        (
            of("ip address add 2001:db8::1/64 dev br1 nodad"),
            "warn",
            "br<VNI> loses its IPv6 gateway addresses when it goes down: VNIs 1",
            By(of("ip address del 2001:db8::1/64 dev br1")),
        ),
        (
            of("ip link set underlay mtu 1500"),
            "warn",
            "packets of 1500 bytes on vxlan<VNI> do not fit through underlay (MTU 1500)",
            AsTold,
        ),
        // What becomes of the packets of stations.
        (
            of("sysctl -qw net.ipv4.conf.br2.forwarding=0"),
            "fail",
            "off at br<VNI>: the kernel drops what stations send through this gateway: VNIs 2",
            AsTold,
        ),
        (
            of("sysctl -qw net.ipv4.conf.uplink.forwarding=0"),
            "fail",
            "off at uplink: the kernel drops what comes from there",
            AsTold,
        ),
        (
            of("sysctl -qw net.ipv4.conf.br3.proxy_arp=1"),
            "warn",
            "every gateway answers ARP for addresses elsewhere, also for VNIs of others: VNIs 3",
            AsTold,
        ),
        (
            of("ip rule add from 10.64.2.0/24 prohibit"),
            "fail",
            "drops what stations send to uplink: a rule or route prohibits it",
            By(of("ip rule del from 10.64.2.0/24 prohibit")),
        ),
        (
            of("ip route add 10.64.2.2 dev mgmt && sysctl -qw net.ipv4.conf.br2.rp_filter=1"),
            "fail",
            "drops what stations send to uplink: its sender is not expected there (rp_filter)",
            By(of(
                "ip route del 10.64.2.2 && sysctl -qw net.ipv4.conf.br2.rp_filter=0",
            )),
        ),
        (
            of("ip route add default via 10.0.3.1"),
            "warn",
            "the default route leaves by mgmt",
            By(of("ip route del default")),
        ),
        (
            nft(
                "chain inet t c { type filter hook forward priority 0; policy drop; }",
                &[],
            ),
            "fail",
            "drops what stations send to uplink, in chain c of table inet t: VNIs 1-3",
            flush(),
        ),
        (
            nft(
                "chain inet t c { type filter hook forward priority 0; policy drop; }",
                &["iifname br* oifname uplink accept", "meta mark 1 accept"],
            ),
            "unknown",
            "whether what comes from uplink for stations passes chain c of table inet t",
            flush(),
        ),
        (
            nft(
                "chain inet t c { type filter hook forward priority 0; policy drop; }",
                &["ct state established,related accept", "iifname br* accept"],
            ),
            "warn",
            "sessions of stations stall at each move: VNIs 1-3",
            flush(),
        ),
        (
            nft(
                "chain ip t c { type nat hook postrouting priority 100; }",
                &["oifname uplink masquerade"],
            ),
            "warn",
            "all their sessions end at each move: VNIs 1-3",
            flush(),
        ),
        (
            nft(
                "chain inet t c { type filter hook input priority 0; policy accept; }",
                &["udp dport 4789 drop"],
            ),
            "fail",
            "drops VXLAN (UDP port 4789) from underlay",
            flush(),
        ),
        (
            nft(
                "chain bridge t c { type filter hook prerouting priority 0; policy accept; }",
                &["ether type arp iifname vxlan2 drop"],
            ),
            "fail",
            "drops ARP of stations, in chain c of table bridge t: VNIs 2",
            flush(),
        ),
        (
            nft(
                "chain inet t c { type filter hook forward priority 0; policy drop; }",
                &["iifname br* oifname uplink accept", "iifname uplink accept"],
            ) + " && ip link add port type veth peer name port2 && ip link set port master br1 up \
                 && sysctl -qw net.bridge.bridge-nf-call-iptables=1",
            "warn",
            "shows frames that cross br<VNI> to rules which do not let all of them pass: VNIs 1",
            By(of(
                "ip link del port && sysctl -qw net.bridge.bridge-nf-call-iptables=0 && nft flush ruleset",
            )),
        ),
        (
            of("tc qdisc add dev vxlan2 clsact \
                && tc filter add dev vxlan2 egress protocol all u32 match u32 0 0"),
            "unknown",
            "programs of tc or XDP, which may drop any packet and are not read here, are at vxlan2",
            By(of("tc qdisc del dev vxlan2 clsact")),
        ),
        (
            of("ip route add unreachable default"),
            "warn",
            "no default route: the kernel drops what stations send beyond",
            By(of("ip route del unreachable default")),
        ),
        (
            frr(&[
                "route-map closed deny 1",
                "exit",
                "ip protocol ospf route-map closed",
            ]),
            "fail",
            "`ip protocol ospf route-map closed` keeps every route of OSPF out of the kernel",
            AsTold,
        ),
        // bgpd.
        (
            frr(&["no route-map filter-vni deny 65535"]),
            "warn",
            "is not closed by a deny: until wmgwd closes it",
            AsTold,
        ),
        (
            frr(&["no route-map filter-vni permit 3"]),
            "fail",
            "holds type-3 routes back",
            AsTold,
        ),
        (
            frr(&["route-map filter-vni permit 1", "no on-match goto"]),
            "fail",
            "lets type-2 routes out whatever the VNI",
            By(frr(&["route-map filter-vni permit 1", "on-match goto 4"])),
        ),
        (
            evpn("no neighbor fabric route-map filter-vni out"),
            "fail",
            "is not the outbound filter of 10.0.1.17",
            AsTold,
        ),
        (
            evpn("no neighbor fabric route-map not-from-gateways in"),
            "warn",
            "bgpd gives up its own route",
            By(evpn("neighbor fabric route-map not-from-gateways in")),
        ),
        (
            evpn("no advertise-svi-ip"),
            "warn",
            "without advertise-svi-ip",
            AsTold,
        ),
        (
            evpn("no advertise-all-vni"),
            "fail",
            "without advertise-all-vni",
            AsTold,
        ),
        (
            frr(&[
                EVPN[0],
                EVPN[1],
                "vni 1",
                "route-target export 65000:9",
                "exit-vni",
                "vni 2",
                "route-target export 65000:9",
                "exit-vni",
            ]),
            "fail",
            "do not tell these VNIs from others (as 1 from 2): 1-2",
            By(frr(&[
                EVPN[0],
                EVPN[1],
                "vni 1",
                "no route-target export 65000:9",
                "exit-vni",
                "vni 2",
                "no route-target export 65000:9",
                "exit-vni",
            ])),
        ),
        // ospfd.
        (
            frr(&["router ospf", "no network 10.64.0.0/10 area 0.0.0.0"]),
            "fail",
            "br<VNI> is in no OSPF area, so that no router upstream hears of its network: VNIs 1-3",
            By(frr(&["router ospf", "network 10.64.0.0/10 area 0.0.0.0"])),
        ),
        (
            frr(&["interface br1", "no ip ospf passive"]),
            "warn",
            "br<VNI> is not passive, so that stations hear hellos and could become neighbours: VNIs 1",
            By(frr(&["interface br1", "ip ospf passive"])),
        ),
        (
            frr(&["interface br3", "ip ospf cost 100"]),
            "warn",
            "costs less than 65535 although no wmgwd runs here, and draws traffic: VNIs 3",
            By(frr(&["interface br3", "ip ospf cost 65535"])),
        ),
        (
            frr(&["interface uplink", "no ip ospf bfd"]),
            "warn",
            "none on uplink: the upstream router goes on using a dead gateway for up to 40 s",
            By(frr(&[
                "interface uplink",
                "ip ospf bfd",
                "ip ospf bfd profile uplink",
            ])),
        ),
        (
            of("ip link add link br1 name ear type macvlan mode bridge && ip link set ear up"),
            "fail",
            "ear (macvlan on br1) answers ARP for the gateway address while br1 is silent",
            By(of("ip link del ear")),
        ),
        (
            of("bridge link set dev vxlan1 bcast_flood off"),
            "fail",
            "broadcasts do not leave by vxlan<VNI>",
            AsTold,
        ),
        (
            of("bridge link set dev vxlan1 state 1"),
            "fail",
            "br<VNI> lets no frames through vxlan<VNI> (spanning tree): VNIs 1",
            By(of("bridge link set dev vxlan1 state 3")),
        ),
        (
            vxlan(3, "").replace("4789", "8472"),
            "warn",
            "vxlan<VNI> does not use UDP port 4789, as the access points do by default: VNIs 3",
            By(vxlan(3, "")),
        ),
        (
            of("bridge link set dev vxlan2 locked on"),
            "fail",
            "vxlan<VNI> is locked, so that br<VNI> drops what stations send until EVPN has told of them: VNIs 2",
            AsTold,
        ),
        (
            of(
                "ip link add port type veth peer name port2 && ip link set port master br1 up \
                && bridge link set dev port isolated on && bridge link set dev vxlan1 isolated on",
            ),
            "warn",
            "several ports of br<VNI> are isolated: no frame crosses between the stations behind them: VNIs 1",
            By(of(
                "ip link del port && bridge link set dev vxlan1 isolated off",
            )),
        ),
        (
            frr(&[
                "router ospf",
                "no network 10.64.0.0/10 area 0.0.0.0",
                "network 10.64.0.0/10 area 0.0.0.1",
                "area 0.0.0.1 range 10.64.2.0/24 not-advertise",
            ]),
            "fail",
            "`area 0.0.0.1 range 10.64.2.0/24 not-advertise` hides the network of br<VNI> from the upstream router: VNIs 2",
            By(frr(&[
                "router ospf",
                "no area 0.0.0.1 range 10.64.2.0/24 not-advertise",
                "no network 10.64.0.0/10 area 0.0.0.1",
                "network 10.64.0.0/10 area 0.0.0.0",
            ])),
        ),
        (
            frr(&[
                "router ospf",
                "no network 10.64.0.0/10 area 0.0.0.0",
                "redistribute connected",
            ]),
            "fail",
            "`redistribute connected` announces the network of br<VNI>, which is in no area, from every gateway",
            By(frr(&[
                "router ospf",
                "no redistribute connected",
                "network 10.64.0.0/10 area 0.0.0.0",
            ])),
        ),
        (
            frr(&["router ospf", "default-information originate"]),
            "warn",
            "tells the upstream router that the rest of the world is behind this gateway",
            AsTold,
        ),
        (
            of("ip link set uplink down"),
            "fail",
            "uplink, towards the upstream router, is down",
            AsTold,
        ),
        (
            of("ip address del 10.0.2.11/24 dev uplink"),
            "fail",
            "uplink, towards the upstream router, has no IPv4 address",
            By(of("ip address add 10.0.2.11/24 dev uplink")),
        ),
        (
            of("ip link set underlay down"),
            "fail",
            "underlay, which carries vxlan<VNI>, is down",
            AsTold,
        ),
        // What a boot would load.
        (
            file(
                "echo 'bgp extcommunity-list standard wmgwd seq 2 permit rt 65000:2' >>/etc/frr/frr.conf",
            ),
            "warn",
            "/etc/frr/frr.conf lets 1 VNIs out, as `write memory` leaves it",
            AsTold,
        ),
        (
            file(
                "printf 'route-map filter-vni permit 12\\n match evpn vni 2\\n' >>/etc/frr/frr.conf",
            ),
            "warn",
            "/etc/frr/frr.conf lets 1 VNIs out",
            back(),
        ),
        (
            file("sed -i 's/^ ip ospf cost 65535/ ip ospf cost 100/' /etc/frr/frr.conf"),
            "warn",
            "gives br<VNI> a cost below 65535",
            back(),
        ),
        (
            file("sed -i '/ip ospf cost 65535/d' /etc/frr/frr.conf"),
            "warn",
            "no cost for br<VNI>, so that until wmgwd sets it",
            back(),
        ),
        (
            file("sed -i 's/^interface br/i br/' /etc/frr/frr.conf"),
            "unknown",
            "not understood, and may matter: /etc/frr/frr.conf line",
            back(),
        ),
        (
            file("sed -i '/^route-map filter-vni deny/d' /etc/frr/frr.conf"),
            "warn",
            "filter-vni in /etc/frr/frr.conf is not closed by a deny",
            back(),
        ),
        // IPv6.
        (
            ipv6(),
            "warn",
            "without advertise-default-gw the routes of IPv6 gateway addresses lack the Router flag",
            By(no_ipv6()),
        ),
        (
            ipv6(),
            "warn",
            "ospf6d does not run, and br<VNI> has IPv6 gateway addresses",
            By(no_ipv6()),
        ),
    ]
}

#[test]
fn a_gateway_passes_and_each_breakage_is_named() {
    let test = "a_gateway_passes_and_each_breakage_is_named";
    let Some(lab) = Lab::up(test, 1, 3, "example") else {
        return;
    };
    let passes = |after: &str| {
        eventually(&format!("it passes after: {after}"), || {
            let said = usual(&lab);
            if said.status != "0" || !said.findings.is_empty() {
                println!("{test}: not yet after {after}: {:?}", said.findings);
            }
            said.status == "0" && said.findings.is_empty()
        });
    };
    // As an upstream router does that is the way to the rest of the world.
    let default = [
        "configure terminal",
        "router ospf",
        "default-information originate always",
    ];
    let words: Vec<&str> = default.iter().flat_map(|line| ["-c", line]).collect();
    lab.ask("up1", &[&["vtysh"], &words[..]].concat());
    passes("nothing");
    signs(&lab);
    for (breakage, level, text, remedy) in breakages() {
        shell(&lab, &breakage);
        let mut told = String::new();
        eventually(&format!("{text:?} after {breakage}"), || {
            let said = usual(&lab);
            let found = said
                .findings
                .iter()
                .find(|(said, words, _)| said == level && words.contains(text));
            match found {
                Some((_, _, remedy)) => told = remedy.clone(),
                None => println!("{test}: {breakage}: {:?}", said.findings),
            }
            let fits = match said.status.as_str() {
                "0" => said.findings.iter().all(|(level, ..)| level == "warn"),
                "2" => said.findings.iter().any(|(level, ..)| level == "unknown"),
                status => status == "1",
            };
            assert!(
                fits,
                "{breakage}: status {}: {:?}",
                said.status, said.findings
            );
            found.is_some() && (level != "fail" || said.status == "1")
        });
        match remedy {
            Mend::AsTold => shell(&lab, &told),
            Mend::By(command) => shell(&lab, &command),
        }
        passes(&breakage);
    }
    shell(&lab, &stateless());
    passes("the rules without state of wmgwd(8)");
    shell(&lab, "nft flush ruleset");
    // As operators write it, and vtysh takes it: tabs, no indentation, words cut short.
    for edit in [
        "s/^ */\\t/",
        "s/^ *//",
        "s/^interface br/int br/; s/ip ospf cost/ip os co/",
    ] {
        let at_home = "cp /etc/frr/frr.conf /run/saved";
        shell(
            &lab,
            &format!("{at_home} && sed -i '{edit}' /etc/frr/frr.conf"),
        );
        passes(edit);
        shell(&lab, "cat /run/saved >/etc/frr/frr.conf");
    }
    daemons(&lab);
    passes("the daemons");
    others(&lab);
    passes("the other nodes");
    runs(&lab);
}

/// What the signs say follows the options that the daemon would have.
fn signs(lab: &Lab) {
    let with = |options: &[&str]| check(lab, &[&["--name=gw1", ETCD], options].concat());
    says(
        &with(&["--track-uplink=none0"]),
        "fail",
        "none0 does not exist: this gateway gives its VNIs to a better one",
    );
    for options in [
        &["--track-uplink=none0", "--track=evpn,frr"][..],
        &["--track-uplink=none0,uplink", "--track-fabric=underlay"],
    ] {
        let said = with(options);
        assert!(said.findings.is_empty(), "{options:?}: {:?}", said.findings);
    }
}

/// Loads the ruleset that the section FIREWALLS of wmgwd(8) shows.
fn stateless() -> String {
    let page = std::fs::read_to_string("man/wmgwd.8").unwrap();
    let (_, section) = page.split_once(".Sh FIREWALLS").unwrap();
    let (_, begun) = section.split_once(".Bd -literal -offset indent\n").unwrap();
    let (rules, _) = begun.split_once(".Ed").unwrap();
    format!("nft -f - <<'END'\n{rules}END\ntrue")
}

#[track_caller]
fn says(said: &Said, level: &str, text: &str) {
    let found = |(said, words, _): &(String, String, String)| said == level && words.contains(text);
    assert!(
        said.findings.iter().any(found),
        "{text:?}: {:?}",
        said.findings
    );
}

/// FRR daemons that are gone, or stopped, or deny this user.
fn daemons(lab: &Lab) {
    lab.verb(&["frr", "gw1", "stop", "bfdd"]);
    let said = usual(lab);
    says(&said, "warn", "bfdd does not run");
    lab.verb(&["frr", "gw1", "start", "bfdd"]);

    lab.verb(&["signal", "gw1", "STOP", "ospfd"]);
    let said = usual(lab);
    says(&said, "fail", "ospfd runs and does not answer");
    assert_eq!(said.status, "1");
    lab.verb(&["signal", "gw1", "CONT", "ospfd"]);

    // Without FRR, and without etcd's and the bridges' help: what is missing is FRR.
    let words = lab.ask(
        "gw1",
        &[
            "env",
            "PATH=/nowhere",
            env!("CARGO_BIN_EXE_wmgwd"),
            "check",
            "--minvni=50",
            "--maxvni=60",
            ETCD,
        ],
    );
    for part in [
        "vtysh cannot be run",
        "install FRR",
        "there is no br<VNI> to look at",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!words.contains("zebra=yes"), "{words}");

    let exe = env!("CARGO_BIN_EXE_wmgwd");
    shell(
        lab,
        &format!("cp {exe} /run/wmgwd && chmod 755 /run/wmgwd /run"),
    );
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let words = lab.ask(
        "gw1",
        &[&nobody[..], &["/run/wmgwd", "check", "--maxvni=3", ETCD]].concat(),
    );
    for part in [
        "arp_ignore below /proc/sys may not be written",
        "no packet socket",
        "zebra, bgpd, ospfd, bfdd may not be spoken to",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(words.contains("this host may not serve"), "{words}");
    assert!(!words.contains('\x1b'), "{words}");
}

/// What stands in etcd, and etcds that do not answer.
fn others(lab: &Lab) {
    let etcdctl = |arguments: &str| {
        let command =
            format!("ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:2379 {arguments}");
        lab.ask("etcd1", &["sh", "-c", &command])
    };
    let granted = etcdctl("lease grant 600");
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    etcdctl(&format!("put --lease={lease} /wmgwd/node/gw1 '[1]'"));
    etcdctl(&format!("put --lease={lease} /wmgwd/node/gw2 '[2]'"));
    etcdctl(&format!("put --lease={lease} /wmgwd/node/gw3 '[3]'"));
    let meta = r#"'{"version":"0","minvni":1,"maxvni":9}'"#;
    etcdctl(&format!("put --lease={lease} /wmgwd/meta/node/gw2 {meta}"));
    let said = usual(lab);
    says(
        &said,
        "fail",
        "gw1 is registered by another live wmgwd, and none runs on this host",
    );
    says(&said, "warn", "serve other VNIs than 1-3: gw2");
    says(
        &said,
        "warn",
        "do not say what they serve, as daemons of the Go program: gw3",
    );
    etcdctl(&format!("lease revoke {lease}"));

    let said = check(lab, &["--etcd=http://10.0.3.100:1"]);
    assert_eq!(said.status, "1");
    says(&said, "fail", "no connection for /v3/maintenance/status");
    let said = check(lab, &["--etcd=http://10.0.3.100:1,http://10.0.3.100:2379"]);
    assert_eq!(said.status, "0", "{:?}", said.findings);
    says(&said, "warn", "no connection for /v3/maintenance/status");
    let words = lab.ask(
        "gw1",
        &[env!("CARGO_BIN_EXE_wmgwd"), "check", "--maxvni=3", ETCD],
    );
    assert!(words.contains(ONE_MEMBER), "{words}");
    nearly_full(lab);
    let leases = etcdctl("lease list");
    assert!(
        leases.contains("found 0 leases"),
        "a check leaves none: {leases}"
    );
}

/// An etcd whose data take most of its quota, before it raises an alarm.
fn nearly_full(lab: &Lab) {
    let shell = |command: &str| lab.ask("etcd1", &["sh", "-c", command]);
    let (mut etcd, _) = lab.background(
        "etcd1",
        "full",
        &[
            "etcd",
            "--name=full",
            "--data-dir=/run/full",
            "--quota-backend-bytes=64000000",
            "--listen-client-urls=http://10.0.3.100:2399",
            "--advertise-client-urls=http://10.0.3.100:2399",
            "--listen-peer-urls=http://10.0.3.100:2398",
        ],
    );
    let said = || {
        check(
            lab,
            &[
                "--name=gw1",
                "--etcd=http://10.0.3.100:2399,http://10.0.3.100:2399",
            ],
        )
    };
    eventually("the etcd answers", || said().status == "0");
    // etcd takes 1.1 to 1.2 MB for each.
    let put = |count: u32| {
        shell(&format!(
            "for i in $(seq {count}); do head -c 1000000 /dev/zero | tr '\\0' x \
             | ETCDCTL_API=3 etcdctl --endpoints http://10.0.3.100:2399 put big; done"
        ));
    };
    put(36);
    eventually("its data take most of its quota", || {
        put(3);
        let said = said();
        let found = said
            .findings
            .iter()
            .find(|(_, text, _)| text.contains("its quota of 64000000 bytes"));
        assert!(
            !said
                .findings
                .iter()
                .any(|(_, text, _)| text.contains("alarm")),
            "{:?}",
            said.findings
        );
        found.is_some_and(|(level, ..)| level == "warn") && said.status == "0"
    });
    etcd.kill().unwrap();
    etcd.wait().unwrap();
}

/// What `wmgwd check` on a gateway says of its beats: levels and texts, and what repairs it.
fn beats(lab: &Lab, node: &str) -> Vec<(String, String, String)> {
    let (_, findings) = findings(lab, node, &[&format!("--name={node}"), ETCD]);
    let of_beats = findings.iter().filter(|it| it["about"] == "beats");
    of_beats.map(words).collect()
}

/// Input: two gateways that run, and firewalls (nf_tables): the port for beats is dropped at the second, at both, and then
/// the first drops all answers. Output: a check without a name says who receives beats at which port; a gateway whose beats do not get to the other and back is told so, with the port
/// that both firewalls must let through; the other is not; what lets that port and the answers through mends it.
#[test]
fn a_firewall_that_drops_beats_is_found() {
    const PORT: &str = "port 14789";
    let test = "a_firewall_that_drops_beats_is_found";
    let Some(lab) = Lab::up(test, 2, 3, "example") else {
        return;
    };
    let uids = points();
    let start = |node, uids: &String| lab.start(node, &["--join-hold", "0", "--uids", uids]);
    let _daemons = [start("gw1", &uids[0]), start("gw2", &uids[1])];
    lab.settled(&["gw1", "gw2"]);
    let until = |node: &str, other: &str, passes: bool| {
        let (level, text) = match passes {
            true => ("ok", format!("they reach {other} and are answered")),
            false => ("warn", format!("{other} does not answer at ")),
        };
        eventually(&format!("{node}: {text}"), || {
            let said = beats(&lab, node);
            // (Another finding is about the sign of that name.)
            let about_other = said.iter().find(|(_, text, _)| text.contains(other));
            let Some((found, words, remedy)) = about_other else {
                println!("{test}: {node}: {said:?}");
                return false;
            };
            let is_told = found == level && words.contains(&text);
            let names_ports = remedy.matches(PORT).count() == 2;
            is_told && (passes || names_ports)
        });
    };
    let firewall = |node: &str, rules: &[&str]| {
        let rules: String = rules
            .iter()
            .map(|rule| format!("add rule inet firewall input {rule}; "))
            .collect();
        let table = format!(
            "add table inet firewall; flush table inet firewall; \
             add chain inet firewall input {{ type filter hook input priority 0 ; }}; {rules}"
        );
        assert_eq!(lab.ask(node, &["nft", &table]), "", "{node}");
    };
    let both_pass = || {
        until("gw1", "gw2", true);
        until("gw2", "gw1", true);
    };
    both_pass();
    let (_, unnamed) = findings(&lab, "gw1", &[ETCD]);
    let tells_who = |(_, text, _): (String, String, String)| {
        text.starts_with("gw1, gw2 receive them") && text.contains(PORT)
    };
    assert!(unnamed.iter().map(words).any(tells_who), "{unnamed:?}");
    firewall("gw2", &["udp dport 14789 drop"]);
    until("gw1", "gw2", false);
    until("gw2", "gw1", true);
    firewall("gw1", &["udp dport 14789 drop"]);
    until("gw1", "gw2", false);
    until("gw2", "gw1", false);
    firewall("gw2", &[]);
    firewall("gw1", &[]);
    both_pass();
    // As a firewall without state that knows of one direction only.
    let closed = ["udp dport 14789 accept", "udp dport 32768-60999 drop"];
    firewall("gw1", &closed);
    until("gw1", "gw2", false);
    until("gw2", "gw1", true);
    firewall("gw1", &[&["udp sport 14789 accept"], &closed[..]].concat());
    both_pass();
}

/// A daemon that runs here: what it serves is no leftover, and no other may run beside it.
fn runs(lab: &Lab) {
    let _daemon = lab.start("gw1", &["--join-hold", "0"]);
    lab.settled(&["gw1"]);
    let said = usual(lab);
    assert_eq!(
        (said.status.as_str(), said.findings.len()),
        ("0", 0),
        "{:?}",
        said.findings
    );
    let said = check(lab, &["--name=gw7", ETCD]);
    assert_eq!(said.status, "1");
    says(&said, "fail", "a wmgwd named gw1 runs on this host");
}
