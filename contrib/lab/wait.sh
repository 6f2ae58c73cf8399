# shellcheck shell=bash
# Part of lab.sh: waiting for what can be observed.

# Seconds until a part of the network must have come up; a loaded machine needs many, and zebra more of them the more
# bridges there are.
patience() {
	echo $((120 + vnis / 10))
}

await() { # WHAT CMD...: until CMD succeeds
	local what=$1 deadline=$((SECONDS + $(patience)))
	shift
	until "$@"; do
		! is_abandoned || exit 1
		[ "$SECONDS" -lt "$deadline" ] || die "waited $(patience) s in vain for $what"
		sleep 0.1
	done
}

count() { # NODE PATTERN VTYSH-COMMAND: lines of the command's output that match
	local lines
	lines=$(inside "$1" vtysh -c "$3" 2>/dev/null | grep -c -- "$2" || :)
	echo "${lines:-0}"
}

bgp_up() { # HOW_MANY
	[ "$(count ap1 '"state":"Established"' 'show bgp l2vpn evpn summary json')" -ge "$1" ]
}

ospf_up() { # HOW_MANY NEW-GATEWAYS
	local node
	[ "$(count up1 '"nbrState":"Full' 'show ip ospf neighbor json')" -ge "$1" ] ||
		[ "$(count up1 '"state":"Full' 'show ip ospf neighbor json')" -ge "$1" ] && return
	# Hellos on a cable of its own need no help: there is no election, and the next one comes within 10 s.
	[ "$cables" != direct ] || return 1
	# A changed interval makes ospfd send a hello at once, instead of 10 s after its start, and then each 10 s.
	for node in $2 up1; do
		inside "$node" vtysh -d ospfd -c 'configure terminal' -c 'interface uplink' \
			-c 'ip ospf hello-interval 11' -c 'ip ospf hello-interval 10' >/dev/null
	done
	sleep 0.3
	return 1
}

upstream_bgp_up() { # HOW_MANY
	[ "$(count up1 '"state":"Established"' 'show bgp ipv4 unicast summary json')" -ge "$1" ]
}

up1_is_dr() {
	[ "$(count up1 'State DR' 'show ip ospf interface uplink')" -eq 1 ]
}

bfd_up() { # HOW_MANY
	[ "$(count up1 '"status":"up"' 'show bfd peers json')" -ge "$1" ]
}

routes_up() { # gateway knows the way to h1
	local netns
	namespace "$1"
	[ -n "$(ip -n "$netns" route show 10.0.9.0/24)" ]
}

vnis_up() { # the gateway's zebra and bgpd know all VNIs
	[ "$(count "$1" '"vni":' 'show bgp l2vpn evpn vni json')" -ge "$vnis" ]
}

etcd_up() { # NODE
	ETCDCTL_API=3 inside "$1" etcdctl --endpoints http://127.0.0.1:2379 endpoint health >/dev/null 2>&1
}

no_process() { # NODE NAME
	[ -z "$(node_pids "$@")" ]
}

wait_gateways() { # NUMBER...
	local number
	if [ "$upstream" = bgp ]; then
		await "BGP at up1" upstream_bgp_up "$running"
	else
		await "OSPF at up1" ospf_up "$running" "${*/#/gw}"
	fi
	[ "$ipv6" = off ] || await "OSPFv3 at up1" ospf6_up "$running"
	await "BGP at ap1" bgp_up "$running"
	for number in "$@"; do
		await "gw$number to learn the way to h1" routes_up "gw$number"
		[ "$ipv6" = off ] || await "gw$number to learn the way to h1 by IPv6" ipv6_routes_up "gw$number"
		await "gw$number to know its VNIs" vnis_up "gw$number"
		[ "$etcd" != members ] || await "etcd on gw$number" etcd_up "gw$number"
	done
	# The original's configuration has no BFD.
	if [ "$upstream_bfd" = on ] && [ "$config" != original ]; then
		await "BFD at up1" bfd_up "$running"
	fi
}
