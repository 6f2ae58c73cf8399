//! The tables of the design, spelled again as data.

#![allow(clippy::unwrap_used)]
use super::*;

const E: bool = true;
const N: bool = false;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn reached() -> View {
    View {
        ours: false,
        may_pull: false,
        reached: true,
        gives_up: false,
        withdrawn: false,
        former_is_silent: true,
        repair_is_overdue: false,
    }
}

fn migrating(phase: Phase) -> State {
    State::Migrating {
        phase,
        owner: name("gw1"),
        successor: name("gw2"),
    }
}

fn show(arp: bool, evpn: bool, cost: u16) -> Exposure {
    Exposure {
        arp,
        evpn,
        cost: Cost(cost),
    }
}

/// Section 3 of the design: (number, owner's exposure, successor's exposure).
#[test]
fn exposure_is_the_table_of_the_design() {
    let nothing = show(N, N, 65535);
    let table = [
        (2, show(E, E, 100), nothing),
        (3, show(E, E, 100), show(N, E, 100)),
        (4, show(E, E, 65535), show(N, E, 100)),
        (5, show(E, E, 65535), show(E, E, 100)),
        (6, show(N, E, 65535), show(E, E, 100)),
        (7, show(N, E, 65535), show(E, E, 100)),
        (8, nothing, show(E, E, 100)),
        (9, nothing, show(E, E, 100)),
    ];
    for (number, owner, successor) in table {
        let Some(Kind::Migration(phase)) = Kind::from_number(number) else {
            panic!("{number}")
        };
        let state = migrating(phase);
        assert_eq!(wanted(&state, Role::Owner), owner, "{number} owner");
        assert_eq!(
            wanted(&state, Role::Successor),
            successor,
            "{number} successor"
        );
        assert_eq!(
            wanted(&state, Role::Bystander),
            nothing,
            "{number} bystander"
        );
        // The survivor of a broken migration changes nothing before the row is its own.
        assert_eq!(
            wanted(
                &State::SuccessorLost {
                    phase,
                    owner: name("gw1")
                },
                Role::Owner
            ),
            owner
        );
        assert_eq!(
            wanted(
                &State::OwnerLost {
                    phase,
                    successor: name("gw2")
                },
                Role::Successor
            ),
            successor
        );
    }
    for role in [Role::Owner, Role::Successor, Role::Bystander] {
        assert_eq!(wanted(&State::Vacant, role), nothing);
    }
    assert_eq!(
        wanted(&State::Idle { owner: name("gw1") }, Role::Owner),
        show(E, E, 100)
    );
    assert_eq!(
        wanted(&State::Idle { owner: name("gw1") }, Role::Bystander),
        nothing
    );
    assert_eq!(
        wanted(
            &State::FailingOver {
                successor: name("gw2")
            },
            Role::Successor
        ),
        show(E, E, 100)
    );
}

/// Section 2 of the design: who writes what after which row, once its host has got there.
#[test]
fn transitions_are_the_table_of_the_design() {
    let table = [
        (2, Role::Owner, 3),
        (3, Role::Successor, 4),
        (4, Role::Owner, 5),
        (5, Role::Successor, 6),
        (6, Role::Owner, 7),
        (7, Role::Successor, 8),
        (8, Role::Owner, 9),
        (9, Role::Successor, 1),
    ];
    for (from, turn, to) in table {
        let Some(Kind::Migration(phase)) = Kind::from_number(from) else {
            panic!("{from}")
        };
        for role in [Role::Owner, Role::Successor, Role::Bystander] {
            let write = propose(&migrating(phase), role, &reached());
            let number = write.map(|w| w.kind().number());
            assert_eq!(number, (role == turn).then_some(to), "{from} as {role:?}");
            let waiting = View {
                reached: false,
                ..reached()
            };
            assert_eq!(
                propose(&migrating(phase), role, &waiting),
                None,
                "{from} as {role:?} before it got there"
            );
        }
    }
}

#[test]
fn only_the_ring_owner_claims_and_pulls() {
    let idle = State::Idle { owner: name("gw1") };
    let ours = View {
        ours: true,
        may_pull: true,
        ..reached()
    };
    assert_eq!(
        propose(&State::Vacant, Role::Bystander, &ours),
        Some(Write::Claim)
    );
    assert_eq!(propose(&State::Vacant, Role::Bystander, &reached()), None);
    assert_eq!(propose(&idle, Role::Bystander, &ours), Some(Write::Pull));
    assert_eq!(
        propose(
            &idle,
            Role::Bystander,
            &View {
                may_pull: false,
                ..ours
            }
        ),
        None
    );
    assert_eq!(
        propose(
            &idle,
            Role::Bystander,
            &View {
                may_pull: true,
                ..reached()
            }
        ),
        None
    );
    assert_eq!(propose(&idle, Role::Owner, &ours), None);
}

#[test]
fn rows_read_as_who_is_left_in_them() {
    let (a, b) = (name("gw1"), name("gw2"));
    for kind in (0..=10).map(|n| Kind::from_number(n).unwrap()) {
        let both = State::of(kind, Some(&a), Some(&b));
        let owner = State::of(kind, Some(&a), None);
        let successor = State::of(kind, None, Some(&b));
        assert_eq!(
            State::of(kind, None, None),
            State::Vacant,
            "{kind:?}: no live node is in it"
        );
        match kind {
            Kind::Unassigned => assert_eq!([both, owner, successor], [const { State::Vacant }; 3]),
            Kind::Idle => {
                assert_eq!(both, State::Idle { owner: a.clone() });
                assert_eq!(owner, both);
                assert_eq!(successor, State::Vacant);
            }
            Kind::Migration(phase) => {
                assert_eq!(both, migrating(phase));
                assert_eq!(State::of(kind, Some(&a), Some(&a)), owner);
                assert_eq!(
                    owner,
                    State::SuccessorLost {
                        phase,
                        owner: a.clone()
                    }
                );
                assert_eq!(
                    successor,
                    State::OwnerLost {
                        phase,
                        successor: b.clone()
                    }
                );
            }
            Kind::Failover => {
                assert_eq!(
                    both,
                    State::FailingOver {
                        successor: b.clone()
                    }
                );
                assert_eq!(owner, State::Vacant);
                assert_eq!(successor, both);
            }
        }
    }
}

#[test]
fn the_survivor_of_a_migration_mends_it() {
    for phase in Phase::ALL {
        let owner_lost = State::OwnerLost {
            phase,
            successor: name("gw2"),
        };
        let successor_lost = State::SuccessorLost {
            phase,
            owner: name("gw1"),
        };
        assert_eq!(
            propose(&owner_lost, Role::Successor, &reached()),
            Some(Write::Claim)
        );
        assert_eq!(
            propose(&successor_lost, Role::Owner, &reached()),
            Some(Write::Own)
        );
        // The other may live, and show the VNI until it hears that its lease was ended.
        let early = View {
            former_is_silent: false,
            ..reached()
        };
        assert_eq!(propose(&owner_lost, Role::Successor, &early), None);
        assert_eq!(propose(&successor_lost, Role::Owner, &early), None);
        // A Go survivor waits for the ring owner, which must not take the VNI from a living owner.
        let patient = View {
            ours: true,
            ..reached()
        };
        let acts = View {
            repair_is_overdue: true,
            ..patient
        };
        for (state, write) in [(owner_lost, Write::Vacate), (successor_lost, Write::Pull)] {
            assert_eq!(propose(&state, Role::Bystander, &patient), None);
            assert_eq!(propose(&state, Role::Bystander, &acts), Some(write));
            assert_eq!(propose(&state, Role::Bystander, &reached()), None);
        }
    }
}

/// Input: a node whose host does not get there. Output: it withdraws first; then a successor lets the owner go on,
/// and a claimer or an owner gives the VNI back. One that does not give up writes nothing.
#[test]
fn a_node_that_cannot_serve_withdraws_and_gives_the_vni_back() {
    let gives_up = View {
        reached: false,
        gives_up: true,
        withdrawn: true,
        ..reached()
    };
    let exposed = View {
        withdrawn: false,
        ..gives_up
    };
    let tries = View {
        gives_up: false,
        ..gives_up
    };
    let successor = name("gw2");
    let idle = State::Idle { owner: name("gw1") };
    let states = Phase::ALL
        .map(|phase| (migrating(phase), Role::Successor, Write::Cancel))
        .into_iter()
        .chain([
            (
                State::FailingOver { successor },
                Role::Successor,
                Write::Vacate,
            ),
            (idle, Role::Owner, Write::Vacate),
        ]);
    for (state, role, write) in states {
        assert_eq!(propose(&state, role, &gives_up), Some(write), "{state:?}");
        assert_eq!(propose(&state, role, &exposed), None, "{state:?}");
        assert_eq!(propose(&state, role, &tries), None, "{state:?}");
        let owner = propose(&state, Role::Owner, &gives_up);
        assert!(owner.is_none() || role == Role::Owner, "{state:?}");
    }
    let failing = State::FailingOver {
        successor: name("gw2"),
    };
    assert_eq!(
        propose(&failing, Role::Successor, &reached()),
        Some(Write::Own)
    );
}

/// A Go owner does not set its OSPF cost back, and does not answer ARP again.
#[test]
fn an_owner_is_sent_back_only_while_it_serves_or_follows() {
    for phase in Phase::ALL {
        assert!(can_cancel(phase, true, false));
        assert_eq!(
            can_cancel(phase, false, false),
            !phase.relies_on_successor()
        );
        let serves = wanted(&migrating(phase), Role::Owner).arp;
        assert_eq!(can_cancel(phase, false, true), serves, "{phase:?}");
    }
}

/// Announcing while another node answers would let stations flap between the two.
#[test]
fn nobody_announces_while_two_answer() {
    for phase in Phase::ALL {
        let state = migrating(phase);
        assert!(!announces(&state, Role::Owner));
        let alone = !wanted(&state, Role::Owner).arp && phase >= Phase::ArpDisabled;
        assert_eq!(announces(&state, Role::Successor), alone, "{phase:?}");
        if announces(&state, Role::Successor) {
            assert!(wanted(&state, Role::Successor).arp);
        }
    }
}
