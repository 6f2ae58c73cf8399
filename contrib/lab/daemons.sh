# shellcheck shell=bash
# Part of lab.sh: FRR and etcd in the nodes.

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
		if [ "$daemon" = zebra ] && no_process "$node" mgmtd && inside "$node" test -x "$frr_lib/mgmtd"; then
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
		# It was started with zebra. One that still runs keeps another from starting.
		if [ "$daemon" = zebra ]; then
			signal_processes "$node" TERM mgmtd
			await "mgmtd on $node to end" no_process "$node" mgmtd
		fi
	done
}

frr_daemons() { # NODE: what it runs, in the order of starting
	local ospf=' ospfd'
	[ "$ipv6" = off ] || ospf+=' ospf6d'
	case $1-$upstream in
	gw*-bgp | up*-bgp) echo zebra bgpd bfdd ;;
	gw*) echo "zebra bgpd$ospf bfdd" ;;
	up*) echo "zebra$ospf bfdd" ;;
	ap*) echo zebra bgpd bfdd ;;
	*) die "node $1 runs no FRR" ;;
	esac
}

start_etcd() { # NODE ADDRESS
	local node=$1 address=$2 state member number timing=()
	local cluster="$node=http://$address:2380"
	state_of "$node"
	if [ "$etcd" = members ]; then
		cluster=
		for ((number = 1; number <= gateways; number++)); do
			cluster+=,gw$number=http://10.0.3.$((10 + number)):2380
		done
		cluster=${cluster#,}
	fi
	[ -z "$etcd_timing" ] ||
		timing=(--election-timeout "${etcd_timing%,*}" --heartbeat-interval "${etcd_timing#*,}" --pre-vote)
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
			--initial-cluster-token "$tag" "${timing[@]}" --logger zap --log-outputs stderr \
			</dev/null >>"$state/etcd.log" 2>&1 &
	)
}
