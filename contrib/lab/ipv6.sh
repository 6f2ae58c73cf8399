# shellcheck shell=bash
# Part of lab.sh: IPv6 beside IPv4, with --ipv6 on. VNI n has the network fd64:0:0:n::/64 (n in hexadecimal) with the
# gateway address ::1, and its stations have fe80::1 as their router. Gateways and up1 speak OSPFv3 over link-local
# addresses. No address waits for duplicate address detection: those of the gateways are there more than once.

ipv6_network() { # VNI: sets $network
	printf -v network 'fd64:0:0:%x:' "$1"
}

# What `ip -batch` needs for the bridge of a VNI.
ipv6_bridge() { # VNI
	local network
	ipv6_network "$1"
	echo "addr add $network:1/64 dev br$1 nodad"
	echo "addr add fe80::1/64 dev br$1 nodad"
}

# What `ip -batch` needs for the station of a VNI.
ipv6_station() { # VNI
	local network
	ipv6_network "$1"
	echo "addr add $network:10/64 dev eth0 nodad"
	echo "route add default via fe80::1 dev eth0"
}

ipv6_router() { # NODE
	inside "$1" sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.keep_addr_on_down=1
}

# OSPFv3 of the uplink of a router.
ipv6_uplink() { # INTERFACE BFD [LINE...]
	printf 'interface %s\n ipv6 ospf6 area 0.0.0.0\n' "$1"
	[ "$2" = off ] || printf ' ipv6 ospf6 bfd\n'
	[ "$cables" != direct ] || printf ' ipv6 ospf6 network point-to-point\n'
	shift 2
	[ $# -eq 0 ] || printf ' ipv6 ospf6 %s\n' "$@"
	echo exit
}

ipv6_ospf() { # ROUTER-ID
	printf 'router ospf6\n ospf6 router-id %s\n timers lsa min-arrival 0\nexit\n' "$1"
}

ipv6_gateway_config() { # NUMBER
	local vni
	ipv6_uplink uplink on 'bfd profile uplink' 'priority 0' 'retransmit-interval 1'
	[ "$upstream" = ospf ] || for ((vni = 1; vni <= vnis; vni++)); do
		printf 'interface br%d\n ipv6 ospf6 area 0.0.0.0\n ipv6 ospf6 passive\n ipv6 ospf6 cost 65535\nexit\n' "$vni"
	done
	ipv6_ospf "1.1.1.$1"
}

ipv6_upstream_config() {
	local number
	if [ "$cables" = direct ]; then
		for ((number = 1; number <= gateways; number++)); do
			ipv6_uplink "gw$number" "$upstream_bfd"
		done
	else
		# The same dead interval at first as ospfd's, for the same reason.
		ipv6_uplink uplink "$upstream_bfd" 'hello-interval 1' 'dead-interval 2'
	fi
	printf 'interface lan\n ipv6 ospf6 area 0.0.0.0\n ipv6 ospf6 passive\nexit\n'
	ipv6_ospf 10.0.0.1
}

ipv6_up1_is_dr() {
	[ "$(count up1 'State DR' 'show ipv6 ospf6 interface uplink')" -eq 1 ]
}

ospf6_up() { # HOW_MANY
	[ "$(count up1 ' Full/' 'show ipv6 ospf6 neighbor')" -ge "$1" ]
}

ipv6_routes_up() { # gateway knows the way to h1
	local netns
	namespace "$1"
	[ -n "$(ip -6 -n "$netns" route show fd00:9::/64)" ]
}
