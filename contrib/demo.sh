#!/bin/bash
# Shows wmgwd at work on this machine: builds it, lays out a network of gateways in namespaces (contrib/lab)
# with real FRR, etcd and packets, and counts the pings that a station loses while one gateway has its power
# cut and while another one is drained. Everything is removed at the end, also on Ctrl-C.

set -euo pipefail

usage() {
	cat <<'USAGE'
usage: demo.sh [--gateways N] [--vnis N] [--etcd members|one] [-- WMGWD-OPTIONS...]

  --gateways N   at least 3: one is cut off, one is drained, one stays (default 3)
  --vnis N       overlay networks (default 12)
  --etcd KIND    members: an etcd member on each gateway, which dies with it (default); one: a single
                 etcd apart from the gateways
USAGE
}

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

gateways=3 vnis=12 etcd=members
while [ $# -gt 0 ]; do
	case $1 in
	--gateways) gateways=$2 && shift 2 ;;
	--vnis) vnis=$2 && shift 2 ;;
	--etcd) etcd=$2 && shift 2 ;;
	--) shift && break ;;
	-h | --help) usage && exit ;;
	*) usage >&2 && exit 2 ;;
	esac
done
options=("$@")
wmgwd=${CARGO_TARGET_DIR:-target}/release/wmgwd

die() {
	echo "demo: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || die "must be root: it makes network namespaces"
[ "$gateways" -ge 3 ] || die "--gateways must be at least 3"
command -v cargo >/dev/null || die "needs cargo: install Rust first (1.85 or later)"

dir=$(mktemp -d)
lab=(contrib/lab/lab.sh --dir "$dir/lab")
clean_up() {
	local status=$?
	trap '' INT TERM
	if [ "$status" -ne 0 ]; then
		tail -n 5 "$dir"/*.log >&2 2>/dev/null || :
	fi
	# Ends the daemons and the ping too: they live in the lab's namespaces.
	# bash would say of each background job that it was killed.
	exec 3>&2 2>/dev/null
	"${lab[@]}" down >/dev/null 2>&3 || :
	wait || :
	rm -rf -- "$dir"
	exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

# --- What etcd says ----------------------------------------------------------------------------

# Prints "VNI TYPE OWNER" for each VNI, asked at a gateway that is on.
rows() {
	"${lab[@]}" exec "$etcd_node" env ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:2379 \
		--command-timeout 2s get --prefix /wmgwd/vni/ </dev/null 2>/dev/null |
		awk 'NR % 2 { split($0, part, "/"); next }
			part[5] == "type" { type[part[4]] = $0; seen[part[4]] = 1 }
			part[5] == "current" { owner[part[4]] = $0; seen[part[4]] = 1 }
			END { for (vni in seen) print vni, type[vni] + 0, owner[vni] == "" ? "-" : owner[vni] }' |
		sort -n
}

# On a terminal the table is drawn again in its place; elsewhere it is printed once a phase.
drawn=0
table() { # once|again
	local text
	[ "$1" = once ] || [ -t 1 ] || return 0
	text=$(rows | awk '{ list[$3] = list[$3] " " $1 ($2 == 1 ? "" : "*"); count[$3]++ }
		END { for (owner in list) printf "  %-6s %4d VNIs:%s\n", owner, count[owner], list[owner] }' | sort)
	if [ -t 1 ] && [ "$drawn" -gt 0 ]; then
		printf '\033[%dA\033[J' "$drawn"
	fi
	printf '%s\n' "${text:-  (no owner yet)}"
	drawn=$(wc -l <<<"${text:-x}")
	[ "$1" = again ] || drawn=0
}

owner_of() { rows | awk -v vni="$1" '$1 == vni { print $3 }'; }

# Every VNI is at rest, and with none of the gateways that are named.
settled() { # GATEWAY...
	rows | awk -v vnis="$vnis" -v gone=" $* " '
		$2 == 1 && $3 != "-" && index(gone, " " $3 " ") == 0 { good++ }
		END { exit good != vnis }'
}

await_settled() { # SECONDS GATEWAY...
	local deadline=$((SECONDS + $1))
	shift
	until settled "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || die "not every VNI found an owner in time"
		table again
		sleep 0.3
	done
}

# At rest and unchanged for 5 s: the migrations after the start are over.
await_calm() {
	local deadline=$((SECONDS + 120)) now before='' since=$SECONDS
	while :; do
		now=$(rows)
		if [ "$now" != "$before" ] || ! settled; then
			before=$now
			since=$SECONDS
		fi
		[ $((SECONDS - since)) -lt 6 ] || return 0
		[ "$SECONDS" -lt "$deadline" ] || die "the VNIs were not shared out within 120 s"
		table again
		sleep 0.3
	done
}

# --- Counting pings ----------------------------------------------------------------------------

# 20 a second, each with the time of its reply.
start_ping() {
	"${lab[@]}" exec st1 ping -D -i 0.05 -W 1 10.0.9.2 </dev/null >"$dir/ping" 2>&1 &
	ping_pid=$!
}

# Ends the ping and sets $sent, $lost and $outage: the longest time between two replies, less the usual one.
stop_ping() {
	kill -INT "$ping_pid"
	wait "$ping_pid" || :
	read -r sent lost outage < <(awk '
		/^\[/ { time = substr($1, 2) + 0; if (last && time - last > gap) gap = time - last; last = time }
		/packets transmitted/ { sent = $1; received = $4 }
		END { gap -= 0.05; printf "%d %d %.2f\n", sent, sent - received, (gap > 0 ? gap : 0) }' "$dir/ping")
}

# --- The demonstration -------------------------------------------------------------------------

say "Packages"
contrib/install-deps.sh

say "Building wmgwd"
cargo build --release --quiet

say "Network: $gateways gateways, $vnis VNIs, a station in VNI 1, a host behind the upstream router"
"${lab[@]}" up --gateways "$gateways" --vnis "$vnis" --stations 1 --etcd "$etcd"

endpoints=http://10.0.3.100:2379
etcd_node=etcd1
if [ "$etcd" = members ]; then
	# Its own member first, then the others.
	endpoints=http://127.0.0.1:2379
	for ((number = 1; number <= gateways; number++)); do
		endpoints+=,http://10.0.3.$((10 + number)):2379
	done
	etcd_node=gw1
fi

say "Starting wmgwd on every gateway"
pids=()
for ((number = 1; number <= gateways; number++)); do
	"${lab[@]}" exec "gw$number" "$wmgwd" --name "gw$number" --minvni 1 --maxvni "$vnis" \
		--etcd "$endpoints" --join-hold 2 "${options[@]}" </dev/null >"$dir/gw$number.log" 2>&1 &
	pids[number]=$!
done
await_calm
table once

victim=$(owner_of 1)
say "Power cut of $victim, which owns VNI 1, while its station pings the host 20 times a second"
# The table must be read from a member that stays.
if [ "$etcd" = members ] && [ "$victim" = gw1 ]; then
	etcd_node=gw2
fi
"${lab[@]}" exec st1 ping -c 1 -w 30 10.0.9.2 </dev/null >/dev/null || die "the station does not reach the host"
start_ping
sleep 2
"${lab[@]}" kill "$victim"
wait "${pids[${victim#gw}]}" 2>/dev/null || :
await_settled 60 "$victim"
# Long enough for what comes after the takeover: an outage that begins late counts as well.
sleep 15
table once
stop_ping
cut="power cut of $victim: $lost of $sent pings lost, longest outage $outage s"
echo "$cut"

drained=$(owner_of 1)
say "Draining $drained (SIGTERM), which owns VNI 1 now"
# With members: the drained gateway's etcd goes on running, only its wmgwd ends.
start_ping
sleep 2
kill -TERM "${pids[${drained#gw}]}"
status=0
wait "${pids[${drained#gw}]}" || status=$?
[ "$status" -eq 0 ] || die "wmgwd on $drained ended with status $status"
await_settled 60 "$victim" "$drained"
sleep 15
table once
stop_ping
drain="drain of $drained: $lost of $sent pings lost, longest outage $outage s"
echo "$drain"

say "Measured"
echo "$cut"
echo "$drain"
