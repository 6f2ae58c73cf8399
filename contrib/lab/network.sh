# shellcheck shell=bash
# Part of lab.sh: nodes, and what connects them.

top=$(cd -- "$here/../.." && pwd)

start_holder() { # NODE ROLE
	local node=$1 role=$2 netns state deadline pid
	! is_abandoned || exit 1
	namespace "$node"
	state_of "$node"
	mkdir -p "$state"
	rm -f "$state/pid"
	ip netns add "$netns"
	# Own session, no inherited descriptors and not a child of this shell: the node outlives this script and
	# its terminal, and no `wait` here ever waits for it.
	pid=$(
		setsid nsenter --net="/run/netns/$netns" \
			unshare --mount --pid --uts --fork --kill-child -- \
			"$BASH" "$here/node-init.sh" "$state" "$node" "$role" "$usr" \
			</dev/null >"$state/init.log" 2>&1 &
		echo $!
	)
	deadline=$((SECONDS + $(patience)))
	until [ -e "$state/pid" ]; do
		[ "$SECONDS" -lt "$deadline" ] || die "node $node did not start: $(tail -n 3 "$state/init.log")"
		kill -0 "$pid" 2>/dev/null || [ -e "$state/pid" ] ||
			die "node $node did not start: $(tail -n 3 "$state/init.log")"
		sleep 0.02
	done
}

# Plugs a node into a switch: the node's interface has the network's name, the switch's port both names.
plug() { # NODE NETWORK ADDRESS/LEN
	local node=$1 network=$2 address=$3 netns mtu=1500 switch
	namespace switch
	switch=$netns
	namespace "$node"
	# Room for VXLAN around 1500 bytes.
	[ "$network" != underlay ] || mtu=1600
	ip -n "$switch" -batch - <<BATCH
link add $network-$node mtu $mtu type veth peer name $network mtu $mtu netns $netns
link set dev $network-$node master $network up
BATCH
	ip -n "$netns" -batch - <<BATCH
addr add $address dev $network
link set dev $network up
BATCH
}

# A cable of its own from a gateway to a router: each end has the other's address as its peer.
connect() { # GATEWAY NETWORK ADDRESS FAR-NODE FAR-ADDRESS
	local node=$1 network=$2 address=$3 far=$4 far_address=$5 netns mtu=1500
	namespace "$far"
	far=$netns
	namespace "$node"
	[ "$network" != underlay ] || mtu=1600
	ip -n "$far" link add "$node" mtu $mtu type veth peer name "$network" mtu $mtu netns "$netns"
	ip -n "$far" -batch - <<BATCH
addr add $far_address peer $address dev $node
link set dev $node up
BATCH
	ip -n "$netns" -batch - <<BATCH
addr add $address peer $far_address dev $network
link set dev $network up
BATCH
}

make_switch() {
	local netns network
	start_holder switch switch
	namespace switch
	for network in underlay uplink mgmt; do
		# Snooping off: a switch that has to learn who wants OSPF's multicast first makes tests slow.
		echo "link add $network type bridge stp_state 0 mcast_snooping 0"
		echo "link set dev $network up"
	done | ip -n "$netns" -batch -
}

# The commands for `ip -batch` that make VNIs 1..$2 of a node whose underlay address is $1. With a gateway's
# number as $3 the bridges get the gateway address of the VNI, and a MAC of their own.
overlay() { # LOCAL COUNT [GATEWAY]
	local vni mac
	for ((vni = 1; vni <= $2; vni++)); do
		mac=
		if [ -n "${3-}" ]; then
			printf -v mac 'address 02:00:%02x:%02x:%02x:%02x' \
				"$3" $((vni >> 16)) $((vni >> 8 & 255)) $((vni & 255))
		fi
		echo "link add br$vni $mac type bridge stp_state 0 mcast_snooping 0"
		echo "link add vxlan$vni type vxlan id $vni local $1 dstport 4789 nolearning"
		echo "link set dev vxlan$vni master br$vni"
		echo "link set dev vxlan$vni type bridge_slave learning off neigh_suppress off"
		[ -z "${3-}" ] || echo "addr add 10.$((64 + vni / 256)).$((vni % 256)).1/24 dev br$vni"
		[ -z "${3-}" ] || [ "$ipv6" = off ] || ipv6_bridge "$vni"
		echo "link set dev vxlan$vni up"
		echo "link set dev br$vni up"
	done
}

make_gateway() { # NUMBER
	local node=gw$1 number=$1 netns
	start_holder "$node" router
	namespace "$node"
	if [ "$cables" = direct ]; then
		connect "$node" underlay "10.0.1.$((10 + number))" ap1 10.0.1.17
		connect "$node" uplink "10.0.2.$((10 + number))" up1 10.0.2.1
	else
		plug "$node" underlay "10.0.1.$((10 + number))/24"
		plug "$node" uplink "10.0.2.$((10 + number))/24"
	fi
	plug "$node" mgmt "10.0.3.$((10 + number))/24"
	# As the README tells operators: bridges are silent from their first moment, or a gateway that boots would
	# answer for every VNI until its daemon starts.
	inside "$node" sysctl -qw net.ipv4.conf.default.arp_ignore=8
	[ "$ipv6" = off ] || ipv6_router "$node"
	# All interfaces before FRR: zebra misses some of many addresses that are added while it runs.
	overlay "10.0.1.$((10 + number))" "$vnis" "$number" | ip -n "$netns" -batch -
	inside "$node" sysctl -qw net.ipv4.conf.default.arp_ignore=0
}

boot_gateway() { # NUMBER
	local node=gw$1 number=$1 daemons
	gateway_config "$number" | frr_files "$node"
	read -ra daemons <<<"$(frr_daemons "$node")"
	start_frr "$node" "${daemons[@]}"
	[ "$etcd" != members ] || start_etcd "$node" "10.0.3.$((10 + number))"
}

gateway_config() { # NUMBER
	local file vni address=$((10 + $1)) routes
	case $config in
	example) file=$top/frr.conf.example ;;
	original) file=$top/tests/fixtures/frr-original.conf ;;
	*) file=$config ;;
	esac
	# Both files are written as gw1's.
	case $upstream in
	costs) routes=() ;;
	both) routes=(-e 's/^![RO] //') ;;
	ospf) routes=(-e 's/^![RO] //' -e '/^ network 10\.64/d') ;;
	bgp) routes=(-e 's/^![RB] //' -e '/^router ospf/,/^exit/d') ;;
	esac
	[ "$ipv6" = off ] || [ "$upstream" = costs ] || routes+=(-e 's/^!6 //')
	sed -e "s/\b10\.0\.1\.11\b/10.0.1.$address/g" -e "s/\b1\.1\.1\.1\b/1.1.1.$1/g" "${routes[@]}" "$file"
	[ "$upstream" != bgp ] || return 0
	[ "$cables" != direct ] || printf 'interface uplink\n ip ospf network point-to-point\nexit\n'
	# As frr.conf.example tells operators to do.
	[ "$config-$upstream" != example-costs ] && [ "$upstream" != both ] || for ((vni = 1; vni <= vnis; vni++)); do
		printf 'interface br%d\n ip ospf cost 65535\nexit\n' "$vni"
	done
	[ "$ipv6" = off ] || ipv6_gateway_config "$1"
}

# OSPF of the upstream router, whatever its cables.
upstream_ospf() {
	cat <<CONFIG
router ospf
 ospf router-id 10.0.0.1
 timers lsa min-arrival 0
 passive-interface lan
 network 10.0.2.0/24 area 0.0.0.0
 network 10.0.9.0/24 area 0.0.0.0
exit
CONFIG
	[ "$ipv6" = off ] || ipv6_upstream_config
}

upstream_bgp() {
	local number
	cat <<CONFIG
router bgp 65100
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 neighbor gateways peer-group
 neighbor gateways remote-as 65000
 neighbor gateways timers 1 3
 neighbor gateways timers connect 1
CONFIG
	[ "$upstream_bfd" = off ] || printf ' neighbor gateways bfd\n'
	for ((number = 1; number <= gateways; number++)); do
		printf ' neighbor 10.0.2.%d peer-group gateways\n' $((10 + number))
	done
	cat <<CONFIG
 address-family ipv4 unicast
  network 10.0.9.0/24
  maximum-paths 8
 exit-address-family
exit
CONFIG
}

make_upstream() {
	local netns up number bfd='' daemons
	start_holder up1 router
	start_holder h1 host
	[ "$cables" = direct ] || plug up1 uplink 10.0.2.1/24
	namespace up1
	up=$netns
	namespace h1
	ip -n "$up" -batch - <<BATCH
link add lan type veth peer name eth0 netns $netns
addr add 10.0.9.1/24 dev lan
link set dev lan up
BATCH
	ip -n "$netns" -batch - <<BATCH
addr add 10.0.9.2/24 dev eth0
link set dev eth0 up
route add default via 10.0.9.1
BATCH
	if [ "$ipv6" = on ]; then
		ip -n "$up" addr add fd00:9::1/64 dev lan nodad
		ip -n "$netns" addr add fd00:9::2/64 dev eth0 nodad
		ip -n "$netns" -6 route add default via fd00:9::1
		ipv6_router up1
	fi
	read -ra daemons <<<"$(frr_daemons up1)"
	if [ "$upstream" = bgp ]; then
		upstream_bgp | frr_files up1
		start_frr up1 "${daemons[@]}"
		return
	fi
	[ "$upstream_bfd" = off ] || bfd=' ip ospf bfd'
	if [ "$cables" = direct ]; then
		{
			for ((number = 1; number <= gateways; number++)); do
				printf 'interface gw%d\n ip ospf network point-to-point\n%s\nexit\n' "$number" "$bfd"
			done
			upstream_ospf
		} | frr_files up1
		start_frr up1 "${daemons[@]}"
		return
	fi
	# A dead interval of 2 s at first: a router that is alone waits for that long before it makes itself
	# designated router, and all adjacencies wait with it. The usual timers are set right after.
	frr_files up1 <<CONFIG
interface uplink
 ip ospf hello-interval 1
 ip ospf dead-interval 2
$bfd
exit
$(upstream_ospf)
CONFIG
	start_frr up1 "${daemons[@]}"
	await "up1 to become designated router" up1_is_dr
	if [ "$ipv6" = on ]; then
		await "up1 to become designated router of OSPFv3" ipv6_up1_is_dr
		inside up1 vtysh -d ospf6d -c 'configure terminal' -c 'interface uplink' \
			-c 'ipv6 ospf6 hello-interval 10' -c 'ipv6 ospf6 dead-interval 40' >/dev/null
	fi
	inside up1 vtysh -d ospfd -c 'configure terminal' -c 'interface uplink' \
		-c 'ip ospf hello-interval 10' -c 'ip ospf dead-interval 40' >/dev/null
}

make_access_point() {
	local netns ap vni number bfd=''
	start_holder ap1 router
	[ "$cables" = direct ] || plug ap1 underlay 10.0.1.17/24
	namespace ap1
	ap=$netns
	# Like a real one, only the VNIs that it has a station in.
	overlay 10.0.1.17 "$stations" | ip -n "$ap" -batch -
	for ((vni = 1; vni <= stations; vni++)); do
		start_holder "st$vni" host
		namespace "st$vni"
		ip -n "$ap" -batch - <<BATCH
link add st$vni type veth peer name eth0 netns $netns
link set dev st$vni master br$vni up
BATCH
		ip -n "$netns" -batch - <<BATCH
addr add 10.$((64 + vni / 256)).$((vni % 256)).10/24 dev eth0
link set dev eth0 up
route add default via 10.$((64 + vni / 256)).$((vni % 256)).1
BATCH
		[ "$ipv6" = off ] || ipv6_station "$vni" | ip -n "$netns" -batch -
	done
	[ "$fabric_bfd" = off ] || bfd=' neighbor fabric bfd'
	{
		cat <<CONFIG
router bgp 65000
 bgp router-id 10.0.1.17
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor fabric remote-as 65000
 neighbor fabric timers 1 3
 neighbor fabric timers connect 1
$bfd
CONFIG
		for ((number = 1; number <= gateways; number++)); do
			echo " neighbor 10.0.1.$((10 + number)) peer-group fabric"
		done
		cat <<CONFIG
 address-family l2vpn evpn
  neighbor fabric activate
  neighbor fabric route-reflector-client
  advertise-all-vni
 exit-address-family
exit
CONFIG
	} | frr_files ap1
	start_frr ap1 zebra bgpd bfdd
}
