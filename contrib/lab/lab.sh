#!/bin/bash
# A WiMoVE network on one machine: real FRR, real packets, network namespaces. See usage() below.
#
#              host h1
#                |  10.0.9.0/24
#               up1          upstream router (zebra, ospfd, bfdd)
#                |
#   ===== uplink (switch) 10.0.2.0/24 =====
#       |           |           |
#      gw1         gw2         gwN        gateways (zebra, bgpd, ospfd, bfdd): vxlan<VNI> in br<VNI>
#       |           |           |
#   ==== underlay (switch) 10.0.1.0/24 ====        mgmt (switch) 10.0.3.0/24: gateways, etcd1
#                |
#               ap1          access point and route reflector (zebra, bgpd)
#              /   \
#           st1     st2      stations, one for each of the first VNIs
#
# A node is a network, mount, pid and UTS namespace with its own /etc/frr, /run, /proc and /sys, so that
# inside it plain `vtysh` reaches that node's daemons and nothing else. All switches stand in the node
# `switch`, so that no cable between two nodes can tell one of them that the other lost power.

set -euo pipefail

usage() {
	cat <<'USAGE'
usage: lab.sh [--dir DIR] VERB

  up [OPTIONS]        build the network, wait until BGP, OSPF and BFD have come up
      --gateways N    gateways gw1..gwN (default 3)
      --vnis N        VNIs 1..N on every gateway (default 5)
      --stations N    stations st1..stN behind ap1, one in each of VNIs 1..N (default 2)
      --config KIND   gateways' FRR configuration: example (frr.conf.example, default) or
                      original (the one the original project documents) or a file
      --upstream-bfd on|off   whether up1 does BFD (default on)
      --etcd KIND     one (node etcd1, default), members (one member on each gateway), none
      --prefix P      what the namespaces' names begin with (default wmgwd-)
  down                remove all of it; also after an `up` that failed
  status              what is there and how it is
  exec NODE CMD...    run CMD inside a node, in the current directory; signals are passed on to CMD,
                      and CMD is killed when this process is
  pids NODE [NAME]    pids, as seen from here, of the node's processes (called NAME)
  signal NODE SIG NAME  send SIG to all processes called NAME in a node
  kill NODE           power cut: the node falls silent on all its networks at once, then every process
                      in it is killed; no carrier change, no FIN, no RST for anyone else
  revive NODE         power on again after `kill`, with a fresh kernel and FRR
  cut NODE [NET...]   drop everything between a node and its switches (underlay, uplink, mgmt; default
                      all), without the node or its peers losing carrier
  heal NODE [NET...]  undo `cut`
  frr NODE start|stop|restart [DAEMON...]   the node's FRR daemons, as the init system would

DIR holds the lab's state (default $WMGWD_LAB_DIR, else /run/wmgwd-lab); labs with different DIRs are
independent of each other.
USAGE
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
top=$(cd -- "$here/../.." && pwd)
frr_lib=/usr/lib/frr

dir=${WMGWD_LAB_DIR:-/run/wmgwd-lab}
prefix=wmgwd- tag='' gateways=3 vnis=5 stations=2 config=example upstream_bfd=on etcd=one
# Seconds until a part of the network must have come up; a loaded machine needs many.
patience=120

die() {
	# After Ctrl-C, what the rest of an `up` still has to say is of no use.
	! is_abandoned || exit 1
	echo "lab: $*" >&2
	exit 1
}

# Whether `down` has begun while this process was still building.
building=no
is_abandoned() {
	[ "$building" = yes ] && [ ! -e "$dir/lab.env" ]
}

# --- The state of a lab ------------------------------------------------------------------------

save_lab() {
	mkdir -p "$dir"
	cat >"$dir/lab.env" <<LAB
prefix=$prefix
tag=$tag
gateways=$gateways
vnis=$vnis
stations=$stations
config=$config
upstream_bfd=$upstream_bfd
etcd=$etcd
LAB
}

load_lab() { # [FILE]
	[ -e "${1-$dir/lab.env}" ] || die "no lab in $dir: run 'lab.sh --dir $dir up', or name another --dir"
	local key value
	while IFS='=' read -r key value; do
		case $key in
		prefix | tag | gateways | vnis | stations | config | upstream_bfd | etcd)
			printf -v "$key" %s "$value"
			;;
		esac
	done <"${1-$dir/lab.env}"
}

namespace() { # NODE: sets $netns, without a subshell
	netns=$prefix$tag-$1
}

state_of() { # NODE
	state=$dir/nodes/$1
}

# Sets $holder to the node's first process. A pid that was given to another process since is not believed:
# it must still live in the node's own network namespace.
find_holder() { # NODE
	namespace "$1"
	state_of "$1"
	[ -e "$state" ] || die "no node $1 in this lab; 'lab.sh --dir $dir status' lists them"
	holder=
	[ -e "$state/pid" ] || return 1
	read -r holder <"$state/pid"
	[ "/proc/$holder/ns/net" -ef "/run/netns/$netns" ]
}

need_holder() {
	find_holder "$1" || die "node $1 is not running; 'lab.sh --dir $dir revive $1' starts it again"
}

# Runs a command inside a node, without the care of `exec` for signals.
inside() { # NODE CMD...
	local node=$1 holder netns state
	shift
	need_holder "$node"
	nsenter --target "$holder" --net --mount --uts --pid -- "$@"
}

# --- Nodes and their networks ------------------------------------------------------------------

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
			"$BASH" "$here/node-init.sh" "$state" "$node" "$role" \
			</dev/null >"$state/init.log" 2>&1 &
		echo $!
	)
	deadline=$((SECONDS + patience))
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
		echo "link set dev vxlan$vni up"
		echo "link set dev br$vni up"
	done
}

make_gateway() { # NUMBER
	local node=gw$1 number=$1 netns
	start_holder "$node" router
	namespace "$node"
	plug "$node" underlay "10.0.1.$((10 + number))/24"
	plug "$node" uplink "10.0.2.$((10 + number))/24"
	plug "$node" mgmt "10.0.3.$((10 + number))/24"
	# All interfaces before FRR: zebra misses some of many addresses that are added while it runs.
	overlay "10.0.1.$((10 + number))" "$vnis" "$number" | ip -n "$netns" -batch -
}

boot_gateway() { # NUMBER
	local node=gw$1 number=$1
	gateway_config "$number" | frr_files "$node"
	start_frr "$node" zebra bgpd ospfd bfdd
	[ "$etcd" != members ] || start_etcd "$node" "10.0.3.$((10 + number))"
}

gateway_config() { # NUMBER
	local file vni address=$((10 + $1))
	case $config in
	example) file=$top/frr.conf.example ;;
	original) file=$top/tests/fixtures/frr-original.conf ;;
	*) file=$config ;;
	esac
	# Both files are written as gw1's.
	sed -e "s/\b10\.0\.1\.11\b/10.0.1.$address/g" -e "s/\b1\.1\.1\.1\b/1.1.1.$1/g" "$file"
	# As frr.conf.example tells operators to do.
	[ "$config" != example ] || for ((vni = 1; vni <= vnis; vni++)); do
		printf 'interface br%d\n ip ospf cost 65535\nexit\n' "$vni"
	done
}

make_upstream() {
	local netns up bfd=''
	start_holder up1 router
	start_holder h1 host
	plug up1 uplink 10.0.2.1/24
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
	[ "$upstream_bfd" = off ] || bfd=' ip ospf bfd'
	# A dead interval of 2 s at first: a router that is alone waits for that long before it makes itself
	# designated router, and all adjacencies wait with it. The usual timers are set right after.
	frr_files up1 <<CONFIG
interface uplink
 ip ospf hello-interval 1
 ip ospf dead-interval 2
$bfd
exit
router ospf
 ospf router-id 10.0.0.1
 passive-interface lan
 network 10.0.2.0/24 area 0.0.0.0
 network 10.0.9.0/24 area 0.0.0.0
exit
CONFIG
	start_frr up1 zebra ospfd bfdd
	await "up1 to become designated router" up1_is_dr
	inside up1 vtysh -d ospfd -c 'configure terminal' -c 'interface uplink' \
		-c 'ip ospf hello-interval 10' -c 'ip ospf dead-interval 40' >/dev/null
}

make_access_point() {
	local netns ap vni number
	start_holder ap1 router
	plug ap1 underlay 10.0.1.17/24
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
	done
	{
		cat <<CONFIG
router bgp 65000
 bgp router-id 10.0.1.17
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor fabric remote-as 65000
 neighbor fabric timers 1 3
 neighbor fabric timers connect 1
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
	start_frr ap1 zebra bgpd
}

# --- FRR and etcd ------------------------------------------------------------------------------

frr_files() { # NODE, configuration on stdin
	local state
	state_of "$1"
	cat >"$state/etc-frr/frr.conf"
	echo 'service integrated-vtysh-config' >"$state/etc-frr/vtysh.conf"
	: >"$state/etc-frr/daemons"
	chown -R frr:frr "$state/etc-frr" "$state/run/frr"
}

start_frr() { # NODE DAEMON...
	local node=$1 daemon extra state status=0
	shift
	state_of "$node"
	for daemon in "$@"; do
		extra=()
		case $daemon in
		# The size of the netlink buffer, as Debian has it.
		zebra) extra=(-s 90000000) ;;
		esac
		inside "$node" "$frr_lib/$daemon" -d -A 127.0.0.1 "${extra[@]}" \
			--log "file:/run/frr/$daemon.log" --log-level informational \
			</dev/null >>"$state/frr.log" 2>&1 ||
			die "$daemon on $node did not start: $(tail -n 3 "$state/frr.log")"
		# FRR 9 and later: mgmtd holds part of the configuration and must be there before it is loaded.
		if [ "$daemon" = zebra ] && [ -x "$frr_lib/mgmtd" ]; then
			inside "$node" "$frr_lib/mgmtd" -d -A 127.0.0.1 </dev/null >>"$state/frr.log" 2>&1
		fi
	done
	inside "$node" vtysh -b </dev/null >>"$state/frr.log" 2>&1 || status=$?
	# The documented configuration of the original has a line that FRR does not know; the rest loads.
	[ "$status" -eq 0 ] || [ "$config" = original ] ||
		die "$node did not take its FRR configuration: $(tail -n 5 "$state/frr.log")"
}

stop_frr() { # NODE DAEMON...
	local node=$1 daemon
	shift
	for daemon in "$@"; do
		signal_processes "$node" TERM "$daemon"
		await "$daemon on $node to end" no_process "$node" "$daemon"
	done
}

frr_daemons() { # NODE: what it runs, in the order of starting
	case $1 in
	gw*) echo zebra bgpd ospfd bfdd ;;
	up*) echo zebra ospfd bfdd ;;
	ap*) echo zebra bgpd ;;
	*) die "node $1 runs no FRR" ;;
	esac
}

start_etcd() { # NODE ADDRESS
	local node=$1 address=$2 state member number
	local cluster="$node=http://$address:2380"
	state_of "$node"
	if [ "$etcd" = members ]; then
		cluster=
		for ((number = 1; number <= gateways; number++)); do
			cluster+=,gw$number=http://10.0.3.$((10 + number)):2380
		done
		cluster=${cluster#,}
	fi
	member=new
	# A member that comes back after a power cut finds its data and joins again.
	[ ! -d "$state/run/etcd/member" ] || member=existing
	mkdir -p "$state/run/etcd"
	chmod 700 "$state/run/etcd"
	need_holder "$node"
	(
		setsid nsenter --target "$holder" --net --mount --uts --pid -- \
			etcd --name "$node" --data-dir /run/etcd \
			--listen-client-urls "http://$address:2379,http://127.0.0.1:2379" \
			--advertise-client-urls "http://$address:2379" \
			--listen-peer-urls "http://$address:2380" \
			--initial-advertise-peer-urls "http://$address:2380" \
			--initial-cluster "$cluster" --initial-cluster-state "$member" \
			--initial-cluster-token "$tag" --logger zap --log-outputs stderr \
			</dev/null >>"$state/etcd.log" 2>&1 &
	)
}

# --- Waiting for what can be observed ----------------------------------------------------------

await() { # WHAT CMD...: until CMD succeeds
	local what=$1 deadline=$((SECONDS + patience))
	shift
	until "$@"; do
		! is_abandoned || exit 1
		[ "$SECONDS" -lt "$deadline" ] || die "waited $patience s in vain for $what"
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
	# A changed interval makes ospfd send a hello at once, instead of 10 s after its start, and then each 10 s.
	for node in $2 up1; do
		inside "$node" vtysh -d ospfd -c 'configure terminal' -c 'interface uplink' \
			-c 'ip ospf hello-interval 11' -c 'ip ospf hello-interval 10' >/dev/null
	done
	sleep 0.3
	return 1
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
	await "OSPF at up1" ospf_up "$running" "${*/#/gw}"
	await "BGP at ap1" bgp_up "$running"
	for number in "$@"; do
		await "gw$number to learn the way to h1" routes_up "gw$number"
		await "gw$number to know its VNIs" vnis_up "gw$number"
		[ "$etcd" != members ] || await "etcd on gw$number" etcd_up "gw$number"
	done
	# The original's configuration has no BFD.
	if [ "$upstream_bfd" = on ] && [ "$config" != original ]; then
		await "BFD at up1" bfd_up "$running"
	fi
}

# --- Verbs -------------------------------------------------------------------------------------

# Runs functions side by side; fails if one of them does.
in_parallel() { # COMMAND...
	local command pid pids=() status=0
	for command in "$@"; do
		# Not quoted: a command and its number.
		# shellcheck disable=SC2086
		$command &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	[ "$status" -eq 0 ]
}

up() {
	local tool missing='' number commands=() boot=() running=$gateways
	[ "$(id -u)" -eq 0 ] || die "must be root: the lab makes network namespaces"
	for tool in ip bridge nsenter unshare setpriv vtysh etcd etcdctl ping "$frr_lib/zebra"; do
		command -v "$tool" >/dev/null || missing+=" $tool"
	done
	[ -z "$missing" ] || die "not found:$missing; contrib/install-deps.sh installs what the lab needs"
	[ ! -e "$dir/lab.env" ] || die "there is a lab in $dir already; 'lab.sh --dir $dir down' removes it"
	[ ! -e "$dir/lab.removing" ] || die "a lab in $dir was not wholly removed: 'lab.sh --dir $dir down' goes on"
	((stations <= vnis)) || stations=$vnis
	((gateways >= 1 && gateways <= 200)) || die "--gateways must be 1 to 200"
	((vnis >= 1 && vnis <= 40000)) || die "--vnis must be 1 to 40000"
	mkdir -p "$dir"
	dir=$(cd -- "$dir" && pwd)
	tag=$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')
	# From here on there is something to remove.
	trap give_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	save_lab
	building=yes

	make_switch
	commands=(make_upstream make_access_point)
	for ((number = 1; number <= gateways; number++)); do
		commands+=("make_gateway $number")
		boot+=("boot_gateway $number")
	done
	[ "$etcd" != one ] || commands+=(make_etcd)
	in_parallel "${commands[@]}" || die "not all nodes came up"

	# The upstream router is designated router by now: the gateways find one and need not wait for an election.
	in_parallel "${boot[@]}" || die "not all gateways came up"
	# shellcheck disable=SC2046
	wait_gateways $(seq "$gateways")
	[ "$etcd" != one ] || await "etcd on etcd1" etcd_up etcd1
	trap - EXIT INT TERM
	building=no
	echo "lab: up in $SECONDS s: $gateways gateways x $vnis VNIs, $stations stations, state in $dir"
}

make_etcd() {
	local holder netns state
	start_holder etcd1 host
	plug etcd1 mgmt 10.0.3.100/24
	start_etcd etcd1 10.0.3.100
}

give_up() {
	local status=$?
	trap '' INT TERM
	[ "$status" -ge 128 ] || keep_logs
	abandon
	# Its own jobs see that, and end before they make anything else.
	wait || :
	down
	exit "$status"
}

# Tells an `up` that may still be at work to stop. The file is needed until everything is gone.
abandon() {
	[ ! -e "$dir/lab.env" ] || mv -- "$dir/lab.env" "$dir/lab.removing"
}

# What a failed `up` leaves for the reader before everything goes.
keep_logs() {
	local log
	for log in "$dir"/nodes/*/{init,frr,etcd}.log; do
		[ ! -s "$log" ] || { echo "== $log" && tail -n 5 "$log"; } >&2
	done
}

# Ends what lives in our namespaces and removes these: found by their names, so that nothing is forgotten
# that a half-failed `up` made, and nothing is touched that another lab or the machine owns.
down() {
	local path pids
	abandon
	[ -e "$dir/lab.removing" ] || { echo "lab: nothing to remove in $dir" && return; }
	load_lab "$dir/lab.removing"
	[ -n "$tag" ] || die "$dir/lab.removing names no lab"
	for path in "/run/netns/$prefix$tag"-*; do
		[ -e "$path" ] || continue
		# Twice at least: the first round may miss a child that was just born.
		while pids=$(ip netns pids "${path##*/}") && [ -n "$pids" ]; do
			# shellcheck disable=SC2086
			kill -KILL $pids 2>/dev/null || :
			sleep 0.02
		done
		ip netns delete "${path##*/}"
	done
	rm -rf -- "$dir/nodes"
	rm -f -- "$dir/lab.removing"
	rmdir -- "$dir" 2>/dev/null || :
}

nodes() {
	local path
	for path in "$dir"/nodes/*; do
		[ ! -d "$path" ] || echo "${path##*/}"
	done
}

status() {
	local node holder netns state
	load_lab
	echo "lab in $dir: $gateways gateways, $vnis VNIs, config $config, namespaces $prefix$tag-NODE"
	for node in $(nodes); do
		if find_holder "$node"; then
			echo "$node: pid $holder"
		else
			echo "$node: off"
		fi
	done
	inside ap1 vtysh -c 'show bgp l2vpn evpn summary' 2>/dev/null || :
	inside up1 vtysh -c 'show ip ospf neighbor' -c 'show bfd peers brief' 2>/dev/null || :
}

# Becomes a process that stands for CMD: it passes signals on and ends with CMD's status. The command itself
# must be a child, because a process cannot move itself to another pid namespace.
exec_in() { # NODE CMD...
	local holder netns state node=$1
	shift
	[ $# -gt 0 ] || die "exec: which command?"
	need_holder "$node"
	local enter=(nsenter --target "$holder" --net --mount --uts --pid)
	if [ -t 0 ]; then
		# A person at a terminal: the command gets the terminal, and the keyboard's signals with it.
		# shellcheck disable=SC2016
		exec "${enter[@]}" -- "$BASH" -c 'cd -- "$1" 2>/dev/null || cd /; shift; exec "$@"' - "$PWD" "$@"
	fi
	# A shell's background job starts with INT and QUIT ignored, and bash cannot trap what it was born ignoring.
	# shellcheck disable=SC2016
	exec env --default-signal=INT,QUIT "${enter[@]}" --no-fork -- "$BASH" -c '
		cd -- "$1" 2>/dev/null || cd /
		shift
		passed=
		for signal in TERM INT HUP QUIT USR1 USR2; do
			trap "passed=1; kill -$signal \"\$child\" 2>/dev/null || :" "$signal"
		done
		# bash makes background commands ignore INT and QUIT, hence env.
		setpriv --pdeathsig KILL env --default-signal=INT,QUIT "$@" <&0 &
		child=$!
		while :; do
			wait "$child"
			status=$?
			# A signal that was passed on ends `wait` early; a command that ended does not set `passed`.
			[ -n "$passed" ] || exit "$status"
			passed=
		done' - "$PWD" "$@"
}

node_pids() { # NODE [NAME]: not the first process, nor helpers that stand outside of the node
	local node=$1 name=${2-} holder netns state pid comm
	find_holder "$node" || return 0
	for pid in $(ip netns pids "$netns"); do
		[ "$pid" != "$holder" ] || continue
		[ "/proc/$pid/ns/pid" -ef "/proc/$holder/ns/pid" ] || continue
		if [ -n "$name" ]; then
			read -r comm 2>/dev/null <"/proc/$pid/comm" || continue
			[ "$comm" = "$name" ] || continue
		fi
		echo "$pid"
	done
}

signal_processes() { # NODE SIGNAL NAME
	local pids
	pids=$(node_pids "$1" "$3")
	[ -n "$pids" ] || return 0
	# shellcheck disable=SC2086
	kill -"$2" $pids 2>/dev/null || :
}

# The state of a node's switch ports: 0 = drop everything, 3 = forward. Unlike `link set down` it changes no
# carrier, and one batch takes microseconds, so that the node cannot say goodbye on another port.
ports() { # NODE STATE [NETWORK...]
	local node=$1 port_state=$2 netns network port
	shift 2
	namespace switch
	[ $# -gt 0 ] || set -- uplink underlay mgmt
	for network in "$@"; do
		port=$network-$node
		ip -n "$netns" link show dev "$port" >/dev/null 2>&1 || continue
		echo "link set dev $port state $port_state"
	done | bridge -n "$netns" -batch -
}

kill_node() { # NODE
	local holder netns state
	need_holder "$1"
	ports "$1" 0
	kill -KILL "$holder"
	rm -f "$state/pid"
}

revive_node() { # NODE
	local node=$1 holder netns state network running=0 number pids
	[[ $node =~ ^gw([0-9]+)$ ]] || die "only gateways can be revived"
	number=${BASH_REMATCH[1]}
	! find_holder "$node" || die "$node is running; 'lab.sh --dir $dir kill $node' cuts its power"
	# A new kernel knows nothing of before: all interfaces go with the namespace.
	while pids=$(ip netns pids "$netns" 2>/dev/null) && [ -n "$pids" ]; do
		# shellcheck disable=SC2086
		kill -KILL $pids 2>/dev/null || :
		sleep 0.02
	done
	[ ! -e "/run/netns/$netns" ] || ip netns delete "$netns"
	namespace switch
	for network in uplink underlay mgmt; do
		ip -n "$netns" link delete dev "$network-$node" 2>/dev/null || :
	done
	rm -rf -- "$state/run/frr"
	make_gateway "$number"
	boot_gateway "$number"
	for ((number = 1; number <= gateways; number++)); do
		! find_holder "gw$number" || running=$((running + 1))
	done
	wait_gateways "${node#gw}"
}

frr() { # NODE start|stop|restart [DAEMON...]
	local node=$1 action=${2-} daemons
	shift 2 || die "frr NODE start|stop|restart [DAEMON...]"
	daemons=("$@")
	[ $# -gt 0 ] || read -ra daemons <<<"$(frr_daemons "$node")"
	case $action in
	start) start_frr "$node" "${daemons[@]}" ;;
	stop) stop_frr "$node" "${daemons[@]}" ;;
	restart)
		stop_frr "$node" "${daemons[@]}"
		start_frr "$node" "${daemons[@]}"
		;;
	*) die "frr NODE start|stop|restart [DAEMON...]" ;;
	esac
}

# --- The command line --------------------------------------------------------------------------

option() { # NAME VALUE
	[ $# -ge 2 ] || die "$1 needs a value"
	case $1 in
	--dir) dir=$2 ;;
	--gateways) gateways=$2 ;;
	--vnis) vnis=$2 ;;
	--stations) stations=$2 ;;
	--config) config=$2 ;;
	--upstream-bfd) upstream_bfd=$2 ;;
	--etcd) etcd=$2 ;;
	--prefix) prefix=$2 ;;
	*) die "unknown option $1; see 'lab.sh --help'" ;;
	esac
}

verb=
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		usage
		exit
		;;
	--*)
		option "${@:1:2}"
		shift 2
		;;
	*)
		# Options may stand on both sides of the verb, but what follows a node's name is the node's.
		[ -z "$verb" ] || break
		verb=$1
		shift
		;;
	esac
done

case $verb in
up) up ;;
down) down ;;
status) status ;;
exec | pids | signal | kill | revive | cut | heal | frr)
	[ $# -gt 0 ] || die "$verb: which node?"
	load_lab
	case $verb in
	exec) exec_in "$@" ;;
	pids) node_pids "$@" ;;
	signal)
		[ $# -eq 3 ] || die "signal NODE SIGNAL NAME"
		signal_processes "$@"
		;;
	kill) kill_node "$1" ;;
	revive) revive_node "$1" ;;
	cut) ports "$1" 0 "${@:2}" ;;
	heal) ports "$1" 3 "${@:2}" ;;
	frr) frr "$@" ;;
	esac
	;;
'')
	usage >&2
	exit 2
	;;
*) die "unknown verb $verb; see 'lab.sh --help'" ;;
esac
