#![allow(clippy::unwrap_used)]
use super::*;
use crate::host::frr::config::parse_bgp;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

/// FRR 8.4.4, `vtysh -d zebra` with five times `-c 'show evpn arp-cache vni N ip A'`.
const ANSWERS: &str = "\
% VNI 9 does not exist
% Requested neighbor does not exist in VNI 1
IP: 10.64.2.1
 Type: remote
 State: active
 Uptime: 00:02:20
 MAC: 02:00:01:00:00:02
 Sync-info: -
 Remote VTEP: 10.0.1.11
 Local Seq: 0 Remote Seq: 0
IP: 10.64.3.1
 Type: local
 State: active
 Uptime: 00:01:48
 MAC: 02:00:02:00:00:03
 Sync-info: -
 Local Seq: 0 Remote Seq: 0
IP: 10.64.4.1
 Type: local
 State: active
 Uptime: 00:01:48
 MAC: 02:00:02:00:00:04
 Sync-info: -
 Remote VTEP: 10.0.1.11
 Local Seq: 0 Remote Seq: 0
";

#[test]
fn answers_as_8_4_4_gives_them() {
    use Entry::{Absent, Local, Remote, Unknown};
    let entries = parse_entries(ANSWERS);
    // The last was brought back while the other gateway's was still there.
    assert_eq!(entries, [Unknown, Absent, Remote, Local, Local]);
    assert_eq!(parse_entries(""), []);
    assert_eq!(parse_entries(" Type: local\n"), []);
    assert_eq!(
        parse_entries("IP: 10.64.3.1\n Type: auto\n"),
        [Unknown],
        "a word that is not known"
    );
}

#[test]
fn only_what_nobody_else_has_is_lost_at_first() {
    use Entry::{Absent, Local, Remote, Unknown};
    let cases: [(&[Entry], Found, Found); 6] = [
        (&[], Found::Unknown, Found::Unknown),
        (&[Local, Local], Found::Ours, Found::Ours),
        (&[Local, Absent], Found::Lost, Found::Lost),
        (&[Remote], Found::Theirs, Found::Lost),
        (&[Absent, Remote], Found::Theirs, Found::Lost),
        (&[Absent, Unknown], Found::Unknown, Found::Unknown),
    ];
    for (entries, first, later) in cases {
        assert_eq!(judge(entries, false), first, "{entries:?}");
        assert_eq!(judge(entries, true), later, "{entries:?}");
    }
}

fn yields(text: &str) -> bool {
    parse_bgp(text).yields
}

/// FRR 8.4.4, `vtysh -d bgpd -c 'show running-config'` with the documented configuration, after two VNIs
/// were brought back.
const DOCUMENTED: &str = "\
router bgp 65000
 bgp router-id 10.0.1.11
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor fabric remote-as 65000
 neighbor 10.0.1.17 peer-group fabric
 !
 address-family l2vpn evpn
  neighbor fabric activate
  neighbor fabric route-map filter-vni out
  advertise-all-vni
  vni 2
   advertise-svi-ip
  exit-vni
  vni 1
   advertise-svi-ip
  exit-vni
  advertise-svi-ip
 exit-address-family
exit
!
route-map filter-vni permit 1
 match evpn route-type macip
 on-match goto 4
exit
!
route-map filter-vni deny 65535
exit
!
";

#[test]
fn the_documented_configuration_yields() {
    assert!(yields(DOCUMENTED));
    let for_some = DOCUMENTED.replace("\n  advertise-svi-ip\n", "\n");
    assert!(!yields(&for_some), "the line under a VNI may be wmgwd's");
    assert!(!yields(""));
}

#[test]
fn an_inbound_filter_mends_it() {
    let map = "neighbor fabric route-map filter-vni out";
    let filtered = DOCUMENTED.replace(map, &format!("{map}\n  neighbor fabric route-map other in"));
    assert!(yields(&filtered), "it lets type-2 through");
    let deny = "route-map other deny 1\n match evpn route-type macip\n match community x\nexit\n";
    assert!(!yields(&format!("{filtered}{deny}")));
    assert!(yields(&format!("{DOCUMENTED}{deny}")), "not applied");
    let permit = deny.replace("deny", "permit");
    assert!(yields(&format!("{filtered}{permit}")));
    assert!(!yields(include_str!("../../../frr.conf.example")));
    assert!(yields(include_str!(
        "../../../tests/fixtures/frr-original.conf"
    )));
}

#[test]
fn looks_become_rarer_and_end() {
    let mut svi = Svi::default();
    assert_eq!(svi.again(clock::now()), None);
    svi.note_claimed(&[vni(1)], true);
    let at = |svi: &Svi, seconds| svi.again(clock::now() + Duration::from_secs(seconds));
    assert_eq!(at(&svi, 0), Some(LOOKS[0]));
    assert!(at(&svi, 12).is_some_and(|again| (3..4).contains(&again.as_secs())));
    assert_eq!(at(&svi, 3600), Some(LOOKS[1]));
    svi.watched.values_mut().for_each(|w| w.open = false);
    assert_eq!(at(&svi, 0), None);
    svi.look_again();
    assert!(at(&svi, 0).is_some());
}

/// Input: a route that is lost for an hour, looked at each second and opened by an audit each 30 s; then it is there,
/// and lost again. Output: some tries at once, one warning, a try each five minutes; then all that from the beginning.
#[test]
fn a_route_that_does_not_come_back_is_tried_again_later() {
    let start = Time::since_boot(Duration::from_secs(100));
    let mut watched = Watched::new(start, true);
    let mut lose = |from: Time| {
        let (mut tries, mut warnings) = (Vec::new(), Vec::new());
        for second in 0..3_600 {
            watched.open |= second % 30 == 0;
            match watched
                .open
                .then(|| watched.note_lost(from + Duration::from_secs(second)))
            {
                Some(Remedy::BringBack) => tries.push(second),
                Some(Remedy::Warn) => warnings.push(second),
                Some(Remedy::Leave) | None => {}
            }
        }
        let end = from + Duration::from_secs(3_600);
        (tries, warnings, watched.note_found(end), end)
    };
    let (tries, warnings, was_lost, end) = lose(start);
    assert_eq!(tries[..4], [0, 1, 2, 330]);
    let pauses = tries[3..].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(pauses.clone().all(|it| it == 300), "{tries:?}");
    assert_eq!(tries.len(), 14);
    assert_eq!((warnings, was_lost), (vec![3], true));
    assert_eq!(lose(end).1, [3], "warned of once more");
}

/// Input: tries that vtysh does not get to. Output: they do not count.
#[test]
fn a_try_that_was_not_made_is_made_at_the_next_look() {
    let now = Time::since_boot(Duration::from_secs(100));
    let mut watched = Watched::new(now, true);
    for _ in 0..10 {
        assert_eq!(watched.note_lost(now), Remedy::BringBack);
        watched.note_untried(now);
    }
    for _ in 0..TRIES {
        assert_eq!(watched.note_lost(now), Remedy::BringBack);
    }
    assert_eq!(watched.note_lost(now), Remedy::Warn);
    let later = now + LATER;
    for _ in 0..10 {
        assert_eq!(watched.note_lost(later), Remedy::BringBack);
        watched.note_untried(later);
    }
}
