#!/bin/bash
# A WiMoVE network on one machine: real FRR, real packets, network namespaces. See usage() below.
#
#              host h1
#                |  10.0.9.0/24
#               up1          upstream router (zebra, ospfd or bgpd, bfdd)
#                |
#   ===== uplink (switch) 10.0.2.0/24 =====
#       |           |           |
#      gw1         gw2         gwN        gateways (zebra, bgpd, ospfd, bfdd): vxlan<VNI> in br<VNI>
#       |           |           |
#   ==== underlay (switch) 10.0.1.0/24 ====        mgmt (switch) 10.0.3.0/24: gateways, etcd1 (on both)
#                |
#               ap1          access point and route reflector (zebra, bgpd, bfdd)
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
      --upstream KIND how gateways announce VNIs to up1: costs (OSPF costs, default); for wmgwd --announce routes
                      ospf or bgp; or both (OSPF, costs and routes side by side). All but costs: with
                      frr.conf.example only, and without --ipv6
      --upstream-bfd on|off   whether up1 does BFD (default on)
      --fabric-bfd on|off     whether ap1 does BFD (default on)
      --cables KIND   switch (default), or direct: a cable of its own from each gateway to up1 and to ap1, so
                      that both see at once that a gateway has no power (the drawing above is for switch)
      --ipv6 on|off   whether everything has IPv6 addresses beside those of IPv4 (default off)
      --etcd KIND     one (node etcd1, default), members (one member on each gateway), none
      --etcd-timing E,H   etcd's election timeout and heartbeat interval in ms, with --pre-vote (default: etcd's)
      --usr DIR       lay DIR over /usr in all nodes: another version of FRR, see unpack.sh
      --prefix P      what the namespaces' names begin with (default wmgwd-)
  down                remove all of it; also after an `up` that failed
  status              what is there and how it is
  exec NODE CMD...    run CMD inside a node, in the current directory; signals are passed on to CMD,
                      and CMD is killed when this process is
  pids NODE [NAME]    pids, as seen from here, of the node's processes (called NAME)
  signal NODE SIG NAME  send SIG to all processes called NAME in a node
  kill NODE           power cut: the node falls silent on all its networks at once, then every process
                      in it is killed; no FIN, no RST for anyone else, and no carrier change unless the
                      cables are direct
  revive NODE         power on again after `kill`, with a fresh kernel and FRR
  cut NODE [NET...]   drop everything between a node and its switches (underlay, uplink, mgmt; default
                      all), without the node or its peers losing carrier
  mute NODE [NET...]  drop what a node sends, behind its switch ports; it goes on hearing the others
  deafen NODE [NET...]  drop what the others send to a node
  heal NODE [NET...]  undo `cut`, `mute` and `deafen`
  unplug NODE [NET...]  pull the cables at the switches: the node loses carrier there
  replug NODE [NET...]  undo `unplug`
  frr NODE start|stop|restart [DAEMON...]   the node's FRR daemons, as the init system would
  etcd NODE start|stop|restart  the node's etcd member

DIR holds the lab's state (default $WMGWD_LAB_DIR, else /run/wmgwd-lab); labs with different DIRs are
independent of each other.
USAGE
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
frr_lib=/usr/lib/frr

dir=${WMGWD_LAB_DIR:-/run/wmgwd-lab}
# A wmgwd in the lab takes its options from its arguments alone.
unset "${!WMGWD_@}"
prefix=wmgwd- tag='' gateways=3 vnis=5 stations=2 config=example upstream=costs upstream_bfd=on fabric_bfd=on etcd=one etcd_timing='' usr='' cables=switch ipv6=off

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
upstream=$upstream
upstream_bfd=$upstream_bfd
fabric_bfd=$fabric_bfd
etcd=$etcd
etcd_timing=$etcd_timing
usr=$usr
cables=$cables
ipv6=$ipv6
LAB
}

load_lab() { # [FILE]
	[ -e "${1-$dir/lab.env}" ] || die "no lab in $dir: run 'lab.sh --dir $dir up', or name another --dir"
	local key value
	while IFS='=' read -r key value; do
		case $key in
		prefix | tag | gateways | vnis | stations | config | upstream | upstream_bfd | fabric_bfd | etcd | etcd_timing | usr | cables | ipv6)
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

# --- The rest of it --------------------------------------------------------------------------------

# shellcheck source-path=SCRIPTDIR
# shellcheck source=network.sh
. "$here/network.sh"
# shellcheck source=ipv6.sh
. "$here/ipv6.sh"
# shellcheck source=daemons.sh
. "$here/daemons.sh"
# shellcheck source=wait.sh
. "$here/wait.sh"

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
	[ -z "$usr" ] || usr=$(cd -- "$usr" && pwd) || die "--usr: no such directory"
	((vnis >= 1 && vnis <= 40000)) || die "--vnis must be 1 to 40000"
	case $upstream in
	costs) ;;
	ospf | bgp | both)
		[ "$config" = example ] || die "--upstream $upstream needs --config example"
		[ "$ipv6-$upstream" != on-bgp ] || die "--upstream bgp is for IPv4 only"
		;;
	*) die "--upstream must be costs, ospf, bgp or both" ;;
	esac
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
	if [ "$cables" = direct ]; then
		# The far ends of the cables must be there before the gateways plug in.
		in_parallel make_upstream make_access_point || die "not all nodes came up"
		commands=("${commands[@]:2}")
	fi
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
	# For the beats of gateways, if there is a `wmgwd witness`.
	[ "$cables" = direct ] || plug etcd1 underlay 10.0.1.100/24
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

# Ends the processes in the lab's namespaces and removes these: found by their names, so that nothing is forgotten
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
	inside up1 vtysh -c 'show ip ospf neighbor' -c 'show bgp ipv4 unicast summary' -c 'show bfd peers brief' 2>/dev/null || :
}

# Becomes a process in place of CMD: it passes signals on and ends with CMD's status. The command itself
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

# Names a node's ports at the switch, of the named networks or of all, as far as they exist. Sets `netns` to the
# switch's namespace: call it in the same shell, not in a substitution.
find_ports() { # NODE [NETWORK...]
	local node=$1 network
	shift
	namespace switch
	[ $# -gt 0 ] || set -- uplink underlay mgmt
	found=()
	for network in "$@"; do
		! ip -n "$netns" link show dev "$network-$node" >/dev/null 2>&1 || found+=("$network-$node")
	done
}

# The state of a node's switch ports: 0 = drop everything, 3 = forward. Unlike `link set down` it changes no
# carrier, and one batch takes microseconds, so that the node cannot say goodbye on another port.
ports() { # NODE STATE [NETWORK...]
	local port_state=$2 netns port found
	find_ports "$1" "${@:3}"
	for port in "${found[@]}"; do
		echo "link set dev $port state $port_state"
	done | bridge -n "$netns" -batch -
}

# One direction of a node's switch ports: `ingress` is what the node sends, `egress` what it is sent.
drop_at_switch() { # NODE ingress|egress [NETWORK...]
	local hook=$2 netns port found
	find_ports "$1" "${@:3}"
	for port in "${found[@]}"; do
		ip netns exec "$netns" nft "
			add table netdev $port
			add chain netdev $port $hook { type filter hook $hook device $port priority 0; policy drop; }"
	done
}

pass_at_switch() { # NODE [NETWORK...]
	local netns port found
	find_ports "$@"
	for port in "${found[@]}"; do
		# (`add` first: there may be nothing to delete.)
		ip netns exec "$netns" nft "add table netdev $port; delete table netdev $port"
	done
}

cables_at_switch() { # NODE up|down [NETWORK...]
	local netns port found
	find_ports "$1" "${@:3}"
	for port in "${found[@]}"; do
		ip -n "$netns" link set dev "$port" "$2"
	done
}

kill_node() { # NODE
	local holder netns state
	need_holder "$1"
	# The cables go first: what runs in the node must not see its own death and say goodbye.
	if [ "$cables" = direct ]; then
		namespace "$1"
		printf 'link set dev %s down\n' uplink underlay | ip -n "$netns" -batch -
	fi
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

etcd_member() { # NODE start|stop|restart
	local node=$1 action=${2-} address
	case $node in
	etcd1) address=10.0.3.100 ;;
	gw*) address=10.0.3.$((10 + ${node#gw})) ;;
	*) die "node $node has no etcd" ;;
	esac
	case $action in
	start | stop | restart) ;;
	*) die "etcd NODE start|stop|restart" ;;
	esac
	if [ "$action" != start ]; then
		signal_processes "$node" TERM etcd
		await "etcd on $node to end" no_process "$node" etcd
	fi
	if [ "$action" != stop ]; then
		start_etcd "$node" "$address"
		await "etcd on $node" etcd_up "$node"
	fi
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
	--upstream) upstream=$2 ;;
	--upstream-bfd) upstream_bfd=$2 ;;
	--fabric-bfd) fabric_bfd=$2 ;;
	--etcd) etcd=$2 ;;
	--etcd-timing) etcd_timing=$2 ;;
	--usr) usr=$2 ;;
	--cables) cables=$2 ;;
	--ipv6) ipv6=$2 ;;
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
exec | pids | signal | kill | revive | cut | mute | deafen | heal | unplug | replug | frr | etcd)
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
	mute) drop_at_switch "$1" ingress "${@:2}" ;;
	deafen) drop_at_switch "$1" egress "${@:2}" ;;
	heal)
		ports "$1" 3 "${@:2}"
		pass_at_switch "$@"
		;;
	unplug) cables_at_switch "$1" down "${@:2}" ;;
	replug) cables_at_switch "$1" up "${@:2}" ;;
	frr) frr "$@" ;;
	etcd) etcd_member "$@" ;;
	esac
	;;
'')
	usage >&2
	exit 2
	;;
*) die "unknown verb $verb; see 'lab.sh --help'" ;;
esac
