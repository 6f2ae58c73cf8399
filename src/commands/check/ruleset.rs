//! Pure: what the rules of nftables (`nft -j list ruleset`, libnftables-json(5)) do with a packet.
//!
//! A rule matches, does not match, or may match: what is asked of the packet is not known here, or is a form of
//! rule that is not known. Every branch that may be taken is followed, so that a finding is certain only if all
//! branches agree.

use core::net::Ipv4Addr;
use serde_json::{Map, Value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A packet, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Whether it is ARP, and not IPv4.
    pub arp: bool,
    /// What connection tracking calls it: `new`, `established`, `untracked`.
    pub state: &'static str,
    /// The protocol, in nft's word. Any for `None`.
    pub protocol: Option<&'static str>,
    /// The destination's port.
    pub port: Option<u16>,
    /// The sender. Any for `None`.
    pub from: Option<Ipv4Addr>,
    /// The destination. Any for `None`.
    pub to: Option<Ipv4Addr>,
}

/// One point that a packet passes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hop<'a> {
    /// The families of the tables that see it here.
    pub families: &'static [&'static str],
    /// The hook.
    pub hook: &'static str,
    /// Where it came in; empty for a packet of this host.
    pub at: &'a str,
    /// Where it leaves; empty while that is not decided.
    pub out: &'a str,
}

/// What becomes of a packet; where it is, or may be, dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It passes.
    Passes,
    /// It may be dropped in this chain.
    Unsure(String),
    /// It is dropped in this chain.
    Dropped(String),
}

/// What may come out of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ends {
    accept: bool,
    drop: bool,
    /// At its end, or with `return`.
    through: bool,
}

/// Table (family and name) and name of a chain or a set.
type Name = (String, String, String);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Base {
    hook: String,
    devices: Vec<String>,
    drops: bool,
    is_nat: bool,
}

/// All rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ruleset {
    bases: Vec<(Name, Base)>,
    rules: HashMap<Name, Vec<Vec<Value>>>,
    sets: HashMap<Name, Value>,
}

/// The table of a running wmgwd, in which it drops ARP of VNIs that it does not own.
const OWN: &str = "wmgwd";
/// nft nests no deeper (NFT_JUMP_STACK_SIZE in Linux's include/net/netfilter/nf_tables.h).
const DEPTH: usize = 16;

impl Ruleset {
    /// Reads what `nft -j list ruleset` prints; `None` if it is something else.
    pub fn read(text: &str) -> Option<Ruleset> {
        let json: Value = serde_json::from_str(text).ok()?;
        let mut ruleset = Ruleset::default();
        for object in json.get("nftables")?.as_array()? {
            let Some((kind, it)) = object.as_object().and_then(|it| it.iter().next()) else {
                continue;
            };
            let word = |key: &str| it.get(key).and_then(Value::as_str).unwrap_or_default();
            // What a running wmgwd keeps silent is meant to be.
            if word("table") == OWN {
                continue;
            }
            let name = |of: &str| (word("family").into(), word("table").into(), word(of).into());
            match kind.as_str() {
                "chain" if it.get("hook").is_some() => {
                    let base = Base {
                        hook: word("hook").into(),
                        devices: words(it.get("dev")),
                        drops: word("policy") == "drop",
                        is_nat: word("type") == "nat",
                    };
                    ruleset.bases.push((name("name"), base));
                }
                "rule" => {
                    let expr = it.get("expr").and_then(Value::as_array);
                    let rules = ruleset.rules.entry(name("chain")).or_default();
                    rules.push(expr.cloned().unwrap_or_default());
                }
                "set" | "map" => drop(ruleset.sets.insert(name("name"), it.clone())),
                _ => {}
            }
        }
        Some(ruleset)
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.rules.values().map(Vec::len).sum()
    }

    /// What becomes of a packet on its way along `hops`.
    pub fn fate(&self, packet: &Packet, hops: &[Hop]) -> Fate {
        self.follow(packet, hops).0
    }

    /// The chain in which the packet's address is, or may be, translated.
    pub fn translates(&self, packet: &Packet, hops: &[Hop]) -> Option<String> {
        self.follow(packet, hops).1
    }

    fn follow(&self, packet: &Packet, hops: &[Hop]) -> (Fate, Option<String>) {
        let mut packet = packet.clone();
        let (mut fate, mut translated) = (Fate::Passes, None);
        for hop in hops {
            let here = |(name, base): &&(Name, Base)| {
                hop.families.contains(&name.0.as_str())
                    && base.hook == hop.hook
                    && (base.devices.is_empty()
                        || base.devices.iter().any(|it| it == hop.at || it == hop.out))
            };
            for (name, base) in self.bases.iter().filter(here) {
                let walk = Walk {
                    rules: self,
                    packet: &packet,
                    hop,
                    known: RefCell::default(),
                    untracked: Cell::default(),
                    translated: Cell::default(),
                };
                let mut ends = walk.chain(name, DEPTH);
                match (ends.through, base.drops) {
                    (true, true) => ends.drop = true,
                    (true, false) => ends.accept = true,
                    (false, _) => {}
                }
                let (family, table, chain) = name;
                let place = || format!("chain {chain} of table {family} {table}");
                let untracked = walk.untracked.get();
                if base.is_nat && walk.translated.get() {
                    translated.get_or_insert_with(place);
                }
                match (ends.accept, ends.drop) {
                    (false, true) => return (Fate::Dropped(place()), translated),
                    (true, true) if fate == Fate::Passes => fate = Fate::Unsure(place()),
                    _ => {}
                }
                if untracked {
                    packet.state = "untracked";
                }
            }
        }
        (fate, translated)
    }
}

/// A text, or a list of them.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(word)) => vec![word.clone()],
        Some(Value::Array(all)) => {
            let words = all.iter().filter_map(Value::as_str);
            words.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// One packet at one hook.
struct Walk<'a> {
    rules: &'a Ruleset,
    packet: &'a Packet,
    hop: &'a Hop<'a>,
    /// Chains that were walked; many rules may lead to the same one.
    known: RefCell<HashMap<&'a Name, Ends>>,
    untracked: Cell<bool>,
    translated: Cell<bool>,
}

/// What a packet is asked, as far as the answer is known.
enum Asked {
    Text(String),
    Name(String),
    Address(Ipv4Addr),
    Number(u64),
}

impl<'a> Walk<'a> {
    fn chain(&self, name: &Name, depth: usize) -> Ends {
        let anything = Ends {
            accept: true,
            drop: true,
            through: true,
        };
        let Some((name, rules)) = self.rules.rules.get_key_value(name) else {
            return Ends {
                through: true,
                ..Ends::default()
            };
        };
        let known = self.known.borrow().get(name).copied();
        if let Some(ends) = known {
            return ends;
        }
        if depth == 0 {
            return anything;
        }
        let mut ends = Ends::default();
        let mut ended = false;
        for rule in rules {
            if self.rule(name, rule, &mut ends, depth) {
                ended = true;
                break;
            }
        }
        ends.through |= !ended;
        self.known.borrow_mut().insert(name, ends);
        ends
    }

    /// Adds what a rule may do to `ends`; whether the chain certainly ends with it.
    fn rule(&self, chain: &Name, rule: &[Value], ends: &mut Ends, depth: usize) -> bool {
        let mut certain = true;
        for statement in rule {
            let Some((kind, it)) = statement.as_object().and_then(|it| it.iter().next()) else {
                certain = false;
                continue;
            };
            match kind.as_str() {
                "match" => match self.matches(chain, it) {
                    Some(true) => {}
                    Some(false) => return false,
                    None => certain = false,
                },
                "counter" | "log" | "mangle" | "comment" | "set" | "map" | "ct helper"
                | "ct timeout" | "ct expectation" | "ct count" | "flow" | "last" => {}
                "notrack" => {
                    if certain {
                        self.untracked.set(true);
                    }
                }
                "snat" | "dnat" | "masquerade" | "redirect" => {
                    self.translated.set(true);
                    ends.accept = true;
                    return certain;
                }
                "vmap" => return self.vmap(chain, it, ends, depth) && certain,
                "accept" | "drop" | "reject" | "return" | "jump" | "goto" | "continue" => {
                    return self.verdict(chain, kind, it, ends, depth) && certain;
                }
                "queue" => {
                    (ends.accept, ends.drop) = (true, true);
                    return certain;
                }
                // A target of iptables that nft does not translate, or something newer.
                "xt" if it.get("type").and_then(Value::as_str) == Some("target") => {
                    (ends.accept, ends.drop, ends.through) = (true, true, true);
                    return false;
                }
                _ => certain = false,
            }
        }
        false
    }

    /// Adds what a verdict does; whether the chain certainly ends with it.
    fn verdict(&self, chain: &Name, kind: &str, it: &Value, ends: &mut Ends, depth: usize) -> bool {
        match kind {
            "accept" => ends.accept = true,
            "drop" | "reject" => ends.drop = true,
            "return" => ends.through = true,
            "jump" | "goto" => {
                let target = it.get("target").and_then(Value::as_str).unwrap_or_default();
                let target = (chain.0.clone(), chain.1.clone(), target.to_owned());
                let there = self.chain(&target, depth - 1);
                ends.accept |= there.accept;
                ends.drop |= there.drop;
                if kind == "jump" {
                    return !there.through;
                }
                ends.through |= there.through;
            }
            _ => return false,
        }
        true
    }

    /// Adds what a map of verdicts does; whether the chain certainly ends with it.
    fn vmap(&self, chain: &Name, it: &Value, ends: &mut Ends, depth: usize) -> bool {
        let elements = it.get("data").and_then(|data| self.elements(chain, data));
        let (Some(key), Some(elements)) = (it.get("key"), elements) else {
            (ends.accept, ends.drop, ends.through) = (true, true, true);
            return false;
        };
        let mut certain = true;
        for element in elements {
            let pair = element.as_array().map(Vec::as_slice);
            let Some([value, verdict]) = pair else {
                continue;
            };
            let matches = self.is(chain, key, bare(value));
            let Some((kind, to)) = verdict.as_object().and_then(|it| it.iter().next()) else {
                continue;
            };
            match matches {
                Some(false) => {}
                Some(true) => return self.verdict(chain, kind, to, ends, depth) && certain,
                None => {
                    certain = false;
                    self.verdict(chain, kind, to, ends, depth);
                }
            }
        }
        false
    }

    fn matches(&self, chain: &Name, it: &Value) -> Option<bool> {
        let (left, right) = (it.get("left")?, it.get("right")?);
        if self.is_of_another(left) {
            return Some(false);
        }
        let is = self.is(chain, left, right);
        match it.get("op").and_then(Value::as_str)? {
            "==" | "in" => is,
            "!=" => is.map(|is| !is),
            _ => None,
        }
    }

    /// Whether the field is one of a protocol that the packet does not have: nft leaves out the match of the
    /// protocol that comes with it.
    fn is_of_another(&self, left: &Value) -> bool {
        let protocol = left
            .get("payload")
            .and_then(|it| it.get("protocol"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        match protocol {
            "ip" => self.packet.arp,
            "ip6" | "icmpv6" => true,
            "arp" => !self.packet.arp,
            "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "igmp" | "esp" | "ah"
            | "comp" => self.packet.arp || self.packet.protocol.is_some_and(|it| it != protocol),
            _ => false,
        }
    }

    /// Whether what is asked of the packet is `right`: a value, a set or the name of one, a range, a prefix.
    fn is(&self, chain: &Name, left: &Value, right: &Value) -> Option<bool> {
        if let Some(parts) = left.get("concat").and_then(Value::as_array) {
            return self.is_all(chain, parts, right);
        }
        if let Some(elements) = self.elements(chain, right) {
            return any(elements.iter().map(|it| self.is(chain, left, bare(it))));
        }
        if right.as_str().is_some_and(|it| it.starts_with('@')) {
            return None;
        }
        // `ct state established,related` is a list: one of them.
        if let Some(list) = right.as_array() {
            return any(list.iter().map(|it| self.is(chain, left, it)));
        }
        equals(&self.asked(left)?, right)
    }

    fn is_all(&self, chain: &Name, parts: &[Value], right: &Value) -> Option<bool> {
        if let Some(elements) = self.elements(chain, right) {
            return any(elements
                .iter()
                .map(|it| self.is_all(chain, parts, bare(it))));
        }
        let values = right.get("concat").and_then(Value::as_array)?;
        let each = parts.iter().zip(values);
        let each: Vec<_> = each.map(|(left, it)| self.is(chain, left, it)).collect();
        match each.contains(&Some(false)) || parts.len() != values.len() {
            true => Some(false),
            false => each.into_iter().collect::<Option<Vec<_>>>().map(|_| true),
        }
    }

    /// The elements of a set; `None` if it is none, or one that changes while packets pass.
    fn elements<'b>(&'b self, chain: &Name, right: &'b Value) -> Option<&'b [Value]> {
        const NONE: &[Value] = &[];
        if let Some(set) = right.get("set").and_then(Value::as_array) {
            return Some(set);
        }
        let name = right.as_str()?.strip_prefix('@')?;
        let set = (chain.0.clone(), chain.1.clone(), name.to_owned());
        let set = self.rules.sets.get(&set)?;
        let changes = |flag: &String| flag == "dynamic" || flag == "timeout";
        if words(set.get("flags")).iter().any(changes) {
            return None;
        }
        let elements = set.get("elem").and_then(Value::as_array);
        Some(elements.map_or(NONE, Vec::as_slice))
    }

    fn asked(&self, left: &Value) -> Option<Asked> {
        let object: &Map<String, Value> = left.as_object()?;
        let (kind, it) = object.iter().next()?;
        let word = |key: &str| it.get(key).and_then(Value::as_str).unwrap_or_default();
        let text = |text: &str| Some(Asked::Text(text.to_owned()));
        let name = |name: &str| Some(Asked::Name(name.to_owned()));
        let packet = self.packet;
        match (kind.as_str(), word("key"), word("protocol"), word("field")) {
            ("meta", "iif" | "iifname", ..) => name(self.hop.at),
            ("meta", "oif" | "oifname", ..) => name(self.hop.out),
            ("meta", "nfproto", ..) if !packet.arp => text("ipv4"),
            ("meta", "l4proto", ..) | ("payload", _, "ip", "protocol") => text(packet.protocol?),
            ("meta", "protocol", ..) | ("payload", _, "ether", "type") => {
                text(if packet.arp { "arp" } else { "ip" })
            }
            ("ct", "state", ..) if !packet.arp => text(packet.state),
            ("payload", _, "ip", "saddr") => packet.from.map(Asked::Address),
            ("payload", _, "ip", "daddr") => packet.to.map(Asked::Address),
            ("payload", _, "udp" | "tcp" | "th", "dport") => {
                packet.port.map(|port| Asked::Number(port.into()))
            }
            _ => None,
        }
    }
}

/// An element without what is said of it beside its value.
fn bare(element: &Value) -> &Value {
    let value = element.get("elem").and_then(|it| it.get("val"));
    value.unwrap_or(element)
}

/// Whether one of them is so.
fn any(each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(false);
    for one in each {
        match one {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all = None,
        }
    }
    all
}

fn equals(asked: &Asked, right: &Value) -> Option<bool> {
    let prefix = right.get("prefix");
    let ends = right.get("range").and_then(Value::as_array);
    match asked {
        Asked::Name(name) => {
            let right = right.as_str()?;
            Some(match right.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => name == right,
            })
        }
        Asked::Text(text) => match right {
            Value::String(right) => Some(text == right),
            // A protocol that nft has no name for is none that is asked about here.
            _ => right.as_u64().map(|_| false),
        },
        Asked::Number(number) => match ends.map(Vec::as_slice) {
            Some([first, last]) => Some((first.as_u64()?..=last.as_u64()?).contains(number)),
            _ => Some(right.as_u64()? == *number),
        },
        Asked::Address(address) => {
            let parse = |it: &Value| it.as_str()?.parse::<Ipv4Addr>().ok();
            if let Some(prefix) = prefix {
                let length = u32::try_from(prefix.get("len")?.as_u64()?).ok()?;
                let apart = u32::from(*address) ^ u32::from(parse(prefix.get("addr")?)?);
                // A shift by all 32 bits leaves nothing to differ.
                return Some(length == 0 || apart.checked_shr(32 - length.min(32))? == 0);
            }
            match ends.map(Vec::as_slice) {
                Some([first, last]) => Some((parse(first)?..=parse(last)?).contains(address)),
                _ => Some(parse(right)? == *address),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const FORWARD: Hop = Hop {
        families: &["ip", "inet"],
        hook: "forward",
        at: "br1",
        out: "up",
    };

    /// A ruleset of one base chain in `hook` with this policy, a chain `other`, and these rules in both.
    fn ruleset(policy: &str, rules: &[Value], other: &[Value]) -> Ruleset {
        let table = |mut it: Value| {
            it["family"] = "inet".into();
            it["table"] = "filter".into();
            it
        };
        let chain =
            table(json!({"name": "f", "type": "filter", "hook": "forward", "policy": policy}));
        let mut all = vec![json!({"metainfo": {}}), json!({"chain": chain})];
        for (chain, rules) in [("f", rules), ("other", other)] {
            let rule = |expr: &Value| json!({"rule": table(json!({"chain": chain, "expr": expr}))});
            all.extend(rules.iter().map(rule));
        }
        let nets = json!([{"prefix": {"addr": "10.64.0.0", "len": 10}}, "10.0.0.1", {"range": ["10.2.0.0", "10.3.0.0"]}]);
        all.push(json!({"set": table(json!({"name": "nets", "elem": nets}))}));
        all.push(
            json!({"set": table(json!({"name": "dynamic", "flags": ["dynamic"], "elem": nets}))}),
        );
        Ruleset::read(&json!({"nftables": all}).to_string()).unwrap()
    }

    fn station() -> Packet {
        Packet {
            state: "new",
            from: Some(Ipv4Addr::new(10, 64, 1, 2)),
            to: Some(Ipv4Addr::new(10, 0, 2, 1)),
            ..Packet::default()
        }
    }

    fn test(left: Value, op: &str, right: Value) -> Value {
        json!({"match": {"op": op, "left": left, "right": right}})
    }

    /// Input: one rule that accepts what matches, in a chain that drops the rest. Output: whether it matches.
    #[test]
    fn what_a_rule_matches() {
        let (iif, oif) = (
            json!({"meta": {"key": "iifname"}}),
            json!({"meta": {"key": "oifname"}}),
        );
        let field = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let state = || json!({"ct": {"key": "state"}});
        let from = || field("ip", "saddr");
        let both = json!({"concat": [iif.clone(), oif.clone()]});
        let fits = |test: Value| {
            let rules = ruleset(
                "drop",
                &[json!([test, {"counter": null}, {"accept": null}])],
                &[],
            );
            match rules.fate(&station(), &[FORWARD]) {
                Fate::Passes => Some(true),
                Fate::Dropped(_) => Some(false),
                Fate::Unsure(_) => None,
            }
        };
        let yes = Some(true);
        let no = Some(false);
        for (test, expected) in [
            (test(iif.clone(), "==", json!("br*")), yes),
            (test(iif.clone(), "!=", json!("br1")), no),
            (test(iif.clone(), "==", json!({"set": ["br2", "br1"]})), yes),
            (test(oif.clone(), "==", json!("br1")), no),
            (
                test(
                    both.clone(),
                    "==",
                    json!({"set": [{"concat": ["br1", "up"]}]}),
                ),
                yes,
            ),
            (
                test(
                    both.clone(),
                    "==",
                    json!({"set": [{"concat": ["br1", "br1"]}]}),
                ),
                no,
            ),
            (test(state(), "in", json!(["established", "related"])), no),
            (test(state(), "in", json!(["established", "new"])), yes),
            (test(state(), "==", json!({"set": ["new"]})), yes),
            (test(state(), "in", json!("new")), yes),
            (
                test(
                    from(),
                    "==",
                    json!({"prefix": {"addr": "10.64.0.0", "len": 10}}),
                ),
                yes,
            ),
            (
                test(
                    from(),
                    "==",
                    json!({"prefix": {"addr": "10.0.0.0", "len": 24}}),
                ),
                no,
            ),
            (
                test(
                    from(),
                    "==",
                    json!({"prefix": {"addr": "0.0.0.0", "len": 0}}),
                ),
                yes,
            ),
            (
                test(from(), "==", json!({"range": ["10.64.1.0", "10.64.1.9"]})),
                yes,
            ),
            (test(from(), "==", json!("@nets")), yes),
            (test(field("ip", "daddr"), "==", json!("@nets")), no),
            (test(from(), "==", json!("@dynamic")), None),
            (test(from(), "==", json!("@nothing")), None),
            (test(field("ip6", "saddr"), "!=", json!("::1")), no),
            (test(field("tcp", "dport"), "==", json!(22)), None),
            (
                test(json!({"meta": {"key": "nfproto"}}), "==", json!("ipv4")),
                yes,
            ),
            (
                test(json!({"meta": {"key": "nfproto"}}), "==", json!("ipv6")),
                no,
            ),
            (test(json!({"meta": {"key": "mark"}}), "==", json!(1)), None),
            (json!({"limit": {"rate": 5}}), None),
            (json!({"xt": {"type": "match", "name": "conntrack"}}), None),
            (json!("odd"), None),
        ] {
            assert_eq!(fits(test.clone()), expected, "{test}");
        }
    }

    /// Input: verdicts of each kind. Output: what they lead to.
    #[test]
    fn where_verdicts_lead() {
        let place = || "chain f of table inet filter".to_owned();
        let fate = |policy: &str, rules: &[Value], other: &[Value]| {
            ruleset(policy, rules, other).fate(&station(), &[FORWARD])
        };
        let (accept, drops) = (json!([{"accept": null}]), json!([{"drop": null}]));
        let unsure = json!([{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"drop": null}]);
        let jump = json!([{"jump": {"target": "other"}}]);
        let goto = json!([{"goto": {"target": "other"}}]);
        let back = json!([{"return": null}]);
        let map = json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}], ["new", {"jump": {"target": "other"}}]]}}}]);
        assert_eq!(fate("accept", &[], &[]), Fate::Passes);
        assert_eq!(fate("drop", &[], &[]), Fate::Dropped(place()));
        assert_eq!(
            fate("accept", std::slice::from_ref(&drops), &[]),
            Fate::Dropped(place())
        );
        assert_eq!(
            fate("accept", &[json!([{"reject": {}}])], &[]),
            Fate::Dropped(place())
        );
        assert_eq!(
            fate("accept", &[accept.clone(), drops.clone()], &[]),
            Fate::Passes
        );
        assert_eq!(
            fate("accept", &[unsure.clone(), accept.clone()], &[]),
            Fate::Unsure(place())
        );
        assert_eq!(
            fate("accept", &[unsure.clone(), drops.clone()], &[]),
            Fate::Dropped(place())
        );
        assert_eq!(
            fate("accept", &[json!([{"queue": {"num": 1}}])], &[]),
            Fate::Unsure(place())
        );
        let target = json!([{"xt": {"type": "target", "name": "X"}}]);
        assert_eq!(fate("accept", &[target], &[]), Fate::Unsure(place()));
        for through in [&[][..], std::slice::from_ref(&back)] {
            assert_eq!(
                fate("drop", &[jump.clone(), accept.clone()], through),
                Fate::Passes
            );
            assert_eq!(
                fate("drop", &[goto.clone(), accept.clone()], through),
                Fate::Dropped(place())
            );
        }
        let other = std::slice::from_ref(&accept);
        assert_eq!(
            fate("drop", std::slice::from_ref(&jump), other),
            Fate::Passes
        );
        assert_eq!(fate("drop", &[goto], other), Fate::Passes);
        assert_eq!(
            fate("drop", std::slice::from_ref(&map), other),
            Fate::Passes
        );
        assert_eq!(fate("accept", &[map], &[drops]), Fate::Dropped(place()));
        // A chain that leads to itself, which the kernel does not take.
        assert!(matches!(
            fate(
                "drop",
                std::slice::from_ref(&jump),
                std::slice::from_ref(&jump)
            ),
            Fate::Unsure(_)
        ));
    }

    /// Input: chains of other hooks, families and devices; one of two that drops. Output: only what the packet
    /// passes counts, and each of them must let it through.
    #[test]
    fn only_what_is_on_the_way_counts() {
        let mut rules = ruleset("accept", &[], &[]);
        let mut drops = rules.bases[0].clone();
        drops.1.drops = true;
        drops.1.devices = vec!["eth9".into()];
        rules.bases.push(drops.clone());
        assert_eq!(rules.fate(&station(), &[FORWARD]), Fate::Passes);
        let at = Hop {
            at: "eth9",
            ..FORWARD
        };
        assert!(matches!(rules.fate(&station(), &[at]), Fate::Dropped(_)));
        let bridge = Hop {
            families: &["bridge"],
            at: "eth9",
            ..FORWARD
        };
        assert_eq!(rules.fate(&station(), &[bridge]), Fate::Passes);
    }

    /// Input: rules that keep no state, and address translation. Output: both are seen.
    #[test]
    fn stateless_rules_and_translation() {
        let state = |is: &str| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": is}});
        let mut rules = ruleset(
            "drop",
            &[json!([state("untracked"), {"accept": null}])],
            &[json!([{"notrack": null}])],
        );
        assert!(matches!(
            rules.fate(&station(), &[FORWARD]),
            Fate::Dropped(_)
        ));
        let (mut name, mut base) = rules.bases[0].clone();
        name.2 = "other".into();
        (base.hook, base.drops) = ("prerouting".into(), false);
        rules.bases.push((name, base));
        let before = Hop {
            hook: "prerouting",
            ..FORWARD
        };
        assert_eq!(rules.fate(&station(), &[before, FORWARD]), Fate::Passes);
        let mut rules = ruleset("accept", &[json!([{"masquerade": null}])], &[]);
        assert_eq!(rules.translates(&station(), &[FORWARD]), None);
        rules.bases[0].1.is_nat = true;
        let place = Some("chain f of table inet filter".to_owned());
        assert_eq!(rules.translates(&station(), &[FORWARD]), place);
    }

    #[test]
    fn the_table_of_wmgwd_is_left_out() {
        let chain = |table: &str| {
            let text = r#"{"nftables":[{"chain":{"family":"inet","table":"TABLE","name":"f","hook":"forward","policy":"drop"}}]}"#;
            let rules = Ruleset::read(&text.replace("TABLE", table)).unwrap();
            rules.fate(&station(), &[FORWARD])
        };
        assert_eq!(chain("wmgwd"), Fate::Passes);
        assert!(matches!(chain("other"), Fate::Dropped(_)));
    }

    #[test]
    fn what_is_no_ruleset_is_refused() {
        for text in ["", "{}", "[]", r#"{"nftables":3}"#] {
            assert_eq!(Ruleset::read(text), None, "{text}");
        }
        let odd = r#"{"nftables":[3,{"rule":{"expr":3}},{"chain":3},{"chain":{"hook":1}}]}"#;
        assert!(Ruleset::read(odd).is_some());
    }
}
