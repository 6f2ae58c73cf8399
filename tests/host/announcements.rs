//! What announcements cost: the kernel is asked for its interfaces only when something has changed.

use super::namespace::{self, eventually, sh};
use super::vni;
use std::thread::sleep;
use std::time::Duration;
use wmgwd::host::garp::Announcer;

/// Input: announcements of a bridge, more than a second apart, while nothing changes and after its MAC address or its
/// addresses have changed. Output: the kernel is asked for its interfaces only after a change.
#[test]
fn the_interfaces_are_asked_for_only_after_a_change() {
    namespace::run(
        "announcements::the_interfaces_are_asked_for_only_after_a_change",
        &["ip"],
        || {
            sh(
                "ip link add br7 type bridge; ip address add 10.7.0.1/24 dev br7; ip link set br7 up",
            );
            let mut announcer = Announcer::default();
            let mut asked = || {
                let before = announcer.dumps();
                // Longer than a dump is used whatever happens.
                sleep(Duration::from_millis(1_200));
                let failures = announcer.announce(&[vni(7)], &|| true);
                assert!(failures.is_empty(), "{failures:?}");
                announcer.dumps() - before
            };
            assert_eq!(asked(), 1);
            // (The kernel goes on telling of a bridge that has come up, for a while.)
            eventually("rest", || asked() == 0);
            for change in [
                "ip link set br7 address 02:00:00:00:00:77",
                "ip address add 10.7.0.2/24 dev br7",
                "ip address add fd07::1/64 dev br7 nodad",
                "ip address delete 10.7.0.2/24 dev br7",
            ] {
                sh(change);
                assert_eq!(asked(), 1, "{change}");
            }
        },
    );
}
