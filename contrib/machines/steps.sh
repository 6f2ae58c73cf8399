# shellcheck shell=bash
# Part of machines.sh: the steps, and what an operator would see after each.

table=() different=0

# A row of the table. EXPECTED is a pattern of bash.
expect() { # STEP EXPECTED SEEN
	local mark=' '
	# shellcheck disable=SC2053
	if [[ $3 != $2 ]]; then
		mark='!'
		different=$((different + 1))
	fi
	table+=("$mark"$'\t'"$1"$'\t'"$2"$'\t'"$3")
	printf '%s %s: %s\n' "$mark" "$1" "$3"
}

show_table() {
	printf '\n%s, %d s\n' "$release" $((SECONDS - begun))
	# Long lines are above, in full.
	printf '%s\n' $' \tstep\texpected\tseen' "${table[@]}" | column -t -s $'\t' | cut -c 1-150
	[ "$different" -eq 0 ] || die "$different of ${#table[@]} steps differ (marked with !)"
	echo "machines: all ${#table[@]} steps are as expected"
}

run_step() { # FUNCTION
	await 120 "the VNIs to be shared out before $1" is_calm
	"$1"
}

# --- What is seen ---------------------------------------------------------------------------------

unit() { # MACHINE PROPERTY
	in_machine "$1" systemctl show --property "$2" --value wmgwd
}

is_active() { # MACHINE
	[ "$(unit "$1" ActiveState)" = active ]
}

has_new_run() { # MACHINE OLD-PID
	local pid
	pid=$(unit "$1" MainPID)
	[ "$pid" != 0 ] && [ "$pid" != "$2" ] && is_active "$1"
}

# wmgwd with the options of the service.
wmgwd_in() { # MACHINE ARGUMENT...
	local machine=$1
	shift
	in_machine "$machine" wmgwd "$@" --env-file /etc/default/wmgwd
}

# "gw1 gw1 gw2 gw3 gw3": the owner of each VNI, asked at a machine that runs.
owners() {
	local machine json
	for machine in "${gateways[@]}"; do
		if json=$(wmgwd_in "$machine" status "1-$vnis" --json 2>/dev/null); then
			grep -o '"owner":"[^"]*"' <<<"$json" | cut -d'"' -f4 | tr '\n' ' '
			return
		fi
	done
	return 1
}

# Whose ARP switch and OSPF cost are an owner's, VNI by VNI: what the stations and the routers see.
served_by() {
	local machine
	for machine in "${gateways[@]}"; do
		script_in "$machine" "
			costs=\$(vtysh -d ospfd -c 'show running-config' 2>/dev/null)
			for vni in \$(seq 1 $vnis); do
				arp=\$(cat /proc/sys/net/ipv4/conf/br\$vni/arp_ignore)
				cost=\$(awk -v br=br\$vni '\$1 == \"interface\" { on = \$2 == br }
					on && /ip ospf cost/ { print \$4 }' <<<\"\$costs\")
				if [ \"\$arp\" = 0 ] && [ \"\${cost:-0}\" -le 100 ]; then
					echo \$vni $machine
				elif [ \"\$arp\" != 8 ] || [ \"\${cost:-0}\" != 65535 ]; then
					echo \$vni half-$machine
				fi
			done" 2>/dev/null || :
	done | sort -n | awk '{ printf "%s ", $2 }'
}

# Every VNI has one owner in etcd, and that one alone serves it.
is_consistent() {
	local told
	told=$(owners) || return 1
	[ "$(wc -w <<<"$told")" = "$vnis" ] && [ "$(served_by)" = "$told" ]
}

# As that, for two looks 3 s apart.
is_calm() {
	local before
	is_consistent || return 1
	before=$(owners)
	sleep 3
	[ "$(owners)" = "$before" ] && is_consistent
}

owner_of_1() {
	owners | cut -d ' ' -f 1
}

has_given_all() { # MACHINE
	local told
	told=$(owners) || return 1
	[[ " $told" != *" $1 "* ]]
}

served() { # -> "served" or what is wrong
	if await_or_go_on 90 is_consistent; then echo served; else echo "owners: $(owners); serve: $(served_by)"; fi
}

guards() { # MACHINE -> their number
	in_machine "$1" pgrep --full --count '^wmgwd guard' || :
}

journal() { # MACHINE ARGUMENT...
	local machine=$1
	shift
	in_machine "$machine" journalctl --no-pager --quiet --output cat --unit wmgwd "$@"
}

# The time, for `journal --since`. (With --unit, --after-cursor leaves out the first entry that it should show.)
now() {
	date +@%s.%6N
}

# 20 pings a second from the station in VNI 1.
start_ping() {
	ip netns exec st1 ping -D -i 0.05 -W 1 10.0.2.1 </dev/null >"$dir/ping" 2>&1 &
	ping_pid=$!
	sleep 1
}

# -> "N lost", with the longest time without an answer.
stop_ping() {
	sleep 1
	kill -INT "$ping_pid"
	wait "$ping_pid" || :
	awk '/^\[/ { time = substr($1, 2) + 0; if (last && time - last > gap) gap = time - last; last = time }
		/packets transmitted/ { lost = $1 - $4 }
		END { gap -= 0.05; printf "%d lost", lost; if (lost) printf ", %.1f s", gap }' "$dir/ping"
}

# --- The first day --------------------------------------------------------------------------------

# Prints the shell block with this number of the section "etcd on Debian".
etcd_block() { # NUMBER
	awk -v wanted="$1" '/^## / { here = $0 == "## etcd on Debian" }
		here && /^```sh$/ { number++; inside = 1; next }
		/^```$/ { inside = 0 }
		here && inside && number == wanted' "$top/contrib/etcd/README.md"
}

# Runs that block in each gateway, with its own address where the text has gw1's.
everywhere() { # NUMBER
	local machine text
	text=$(etcd_block "$1")
	[ -n "$text" ] || die "the section on etcd has no block $1"
	for machine in "${gateways[@]}"; do
		script_in "$machine" "${text/address=10.0.3.11/address=10.0.3.1${machine#gw}}" >>"$dir/etcd.log" 2>&1 ||
			die "block $1 of the section on etcd failed on $machine: $(tail -n 3 "$dir/etcd.log")"
	done
}

first_day() {
	local machine seen text job jobs=()
	for machine in "${gateways[@]}"; do
		cp -- "$package" "$dir/$machine/root/wmgwd.deb"
		in_machine "$machine" apt-get install --yes /root/wmgwd.deb >"$dir/install.$machine" 2>&1 &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do
		wait "$job" || die "the package does not install: $(tail -n 5 "$dir"/install.*)"
	done
	expect "install: started, enabled" "inactive disabled" \
		"$(unit gw1 ActiveState) $(unit gw1 UnitFileState)"

	seen=$(wmgwd_in gw1 check --maxvni $vnis 2>&1 | grep -o 'this etcd is a cluster of one' || :)
	expect "check beside Debian's etcd as it starts" 'this etcd is a cluster of one' "$seen"

	script_in gw1 "mkdir /root/ca; cd /root/ca; $(etcd_block 1)" >"$dir/etcd.log" 2>&1 ||
		die "the certificates were not made: $(tail -n 3 "$dir/etcd.log")"
	for machine in "${gateways[@]}"; do
		cp -- "$dir"/gw1/root/ca/{ca.pem,"$machine.pem","$machine.key"} "$dir/$machine/root/"
	done
	everywhere 2
	everywhere 3
	everywhere 6
	for machine in "${gateways[@]}"; do
		printf 'WMGWD_MAXVNI=%d\nWMGWD_JOIN_HOLD=2\nWMGWD_FIT_HOLD=2\n' "$vnis" >>"$dir/$machine/etc/default/wmgwd"
	done

	in_machine gw1 systemctl enable --quiet wmgwd
	in_machine gw1 systemctl start --no-block wmgwd
	sleep 3
	expect "started before etcd" 'activating' "$(unit gw1 ActiveState)"
	text=$(etcd_block 4)
	jobs=()
	for machine in "${gateways[@]}"; do
		script_in "$machine" "$text" >>"$dir/etcd.log" 2>&1 &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do
		wait "$job" || die "etcd does not start: $(in_machine gw1 journalctl --no-pager --quiet --unit etcd | tail -n 30)"
	done
	seen=$(script_in gw1 "$(etcd_block 5)" 2>&1 | tee "$dir/health.log" | grep -c 'is healthy') || :
	expect "healthy members of etcd" 3 "$seen"
	await_or_go_on 60 is_active gw1 || :
	expect "READY once etcd answers" active "$(unit gw1 ActiveState)"
	for machine in gw2 gw3; do
		in_machine "$machine" systemctl enable --quiet --now wmgwd
	done
	await 120 "the gateways to share the VNIs" is_calm
	expect "three gateways" served "$(served)"
	await 60 "the station to reach the router" ip netns exec st1 ping -c 1 -W 1 10.0.2.1 >/dev/null
	expect "VNI 1 from its station" '0 lost' "$(start_ping; stop_ping)"
	wmgwd_in gw1 check --name gw1 >"$dir/check.log" 2>&1 && seen=0 || seen=$?
	expect "check on a gateway that serves: status" 0 "$seen"
}

# --- The days after -------------------------------------------------------------------------------

steps=(
	step_stop step_crash_daemon step_crash_both step_sigstop step_frr_restart step_frr_reload step_etcd_away
	step_reboot step_upgrade step_restart step_wrong_option step_misspelt step_missing_file step_metrics_port step_check_as_root
	step_noise step_security step_purge
)

step_stop() {
	local victim since
	victim=$(owner_of_1)
	start_ping
	in_machine "$victim" systemctl stop wmgwd
	expect "stop" "success 0, 0 guards" \
		"$(unit "$victim" Result) $(unit "$victim" ExecMainStatus), $(guards "$victim") guards"
	has_given_all "$victim" && since=drained || since="still owns: $(owners)"
	expect "stop: its VNIs" drained "$since"
	expect "stop: packets" '0 lost' "$(stop_ping)"
	in_machine "$victim" systemctl start wmgwd
}

step_crash_daemon() {
	local victim pid before
	victim=$(owner_of_1) before=$(owners) pid=$(unit "$victim" MainPID)
	start_ping
	in_machine "$victim" kill -KILL "$pid"
	await_or_go_on 60 has_new_run "$victim" "$pid" || :
	expect "crash of the daemon" 'active, 1 restart' "$(unit "$victim" ActiveState), $(unit "$victim" NRestarts) restart"
	expect "crash of the daemon: packets" '0 lost' "$(stop_ping)"
	expect "crash of the daemon: owners" "$before" "$(owners)"
	in_machine "$victim" systemctl reset-failed wmgwd
}

step_crash_both() {
	local victim pid
	victim=$(owner_of_1) pid=$(unit "$victim" MainPID)
	start_ping
	# shellcheck disable=SC2016
	in_machine "$victim" bash -c 'kill -KILL "$1" $(pgrep --full "^wmgwd guard")' bash "$pid"
	await_or_go_on 60 has_new_run "$victim" "$pid" || :
	expect "crash of daemon and guard" 'active, 1 guards' "$(unit "$victim" ActiveState), $(guards "$victim") guards"
	expect "crash of daemon and guard: afterwards" served "$(served)"
	echo "  packets: $(stop_ping)"
}

step_sigstop() {
	local victim pid since
	victim=$(owner_of_1) pid=$(unit "$victim" MainPID) since=$(now)
	start_ping
	in_machine "$victim" kill -STOP "$pid"
	await_or_go_on 30 has_given_all "$victim" || :
	expect "daemon stopped (SIGSTOP)" elsewhere "$(has_given_all "$victim" && echo elsewhere || owners)"
	await_or_go_on 90 has_new_run "$victim" "$pid" || :
	expect "daemon stopped: systemd" 'Watchdog timeout*, active' \
		"$(journal "$victim" --since "$since" | grep -o 'Watchdog timeout.*' | head -n 1), $(unit "$victim" ActiveState)"
	expect "daemon stopped: afterwards" served "$(served)"
	echo "  packets: $(stop_ping)"
}

step_frr_restart() {
	local victim pid
	victim=$(owner_of_1) pid=$(unit "$victim" MainPID)
	start_ping
	in_machine "$victim" systemctl restart frr
	expect "restart of FRR" served "$(served)"
	expect "restart of FRR: wmgwd" "active, same run" \
		"$(unit "$victim" ActiveState), $([ "$(unit "$victim" MainPID)" = "$pid" ] && echo same run || echo restarted)"
	echo "  packets: $(stop_ping)"
}

step_frr_reload() {
	local victim begin end
	victim=$(owner_of_1)
	in_machine "$victim" systemctl reload frr
	begin=${EPOCHREALTIME/./}
	attracts() { in_machine "$victim" vtysh -d ospfd -c 'show running-config' | grep -q 'ip ospf cost 100'; }
	await_or_go_on 90 attracts || :
	end=${EPOCHREALTIME/./}
	expect "reload of FRR" served "$(served)"
	echo "  costs are back $(((end - begin) / 1000)) ms after the reload"
}

# What the daemon's port for metrics, as far as one is given, answers.
http_get() { # MACHINE PATH
	script_in "$1" "exec 3<>/dev/tcp/127.0.0.1/9798; printf 'GET $2 HTTP/1.0\r\n\r\n' >&3; cat <&3" 2>/dev/null
}

# The sum of a metric's samples.
metric() { # MACHINE NAME
	http_get "$1" /metrics |
		awk -v name="$2" '{ sub(/\{.*\}/, "", $1) } $1 == name { sum += $2; seen = 1 } END { print seen ? sum : "none" }'
}

step_etcd_away() {
	local machine victim jobs=()
	victim=$(owner_of_1)
	with_option "$victim" WMGWD_METRICS=127.0.0.1:9798 in_machine "$victim" systemctl restart wmgwd
	await_or_go_on 90 is_calm || :
	expect "etcd away: fencings before" 0 "$(metric "$victim" wmgwd_fencings_total)"
	for machine in gw2 gw3; do
		in_machine "$machine" systemctl stop etcd
	done
	sleep 15
	expect "etcd away: status" "etcd away*serves 0*" "$(unit "$victim" StatusText)"
	expect "etcd away: serve" '' "$(served_by)"
	# What the alerts WmgwdNothingServed and WmgwdFenced ask for.
	expect "etcd away: served, of how many, time to the fence" "0 $vnis 0" "$(metric "$victim" wmgwd_vnis_served) \
$(metric "$victim" wmgwd_vnis) $(metric "$victim" wmgwd_fence_remaining_seconds)"
	for machine in gw2 gw3; do
		in_machine "$machine" systemctl start etcd &
		jobs+=($!)
	done
	wait "${jobs[@]}" || :
	expect "etcd back" served "$(served)"
	expect "etcd back: fencings" 1 "$(metric "$victim" wmgwd_fencings_total)"
	in_machine "$victim" systemctl restart wmgwd
}

# Whether the first unit's stop began and ended before the others' in the boot before.
stop_order() { # MACHINE
	in_machine "$1" journalctl --no-pager --quiet --boot -1 --output cat _PID=1 |
		awk '/^Stopped .*wmgwd|^Stopped .*[Dd]istributed gateway/ { wmgwd = NR }
			/^Stopping .*FRR|^Stopping .*frr/ { frr = NR } /^Stopping .*etcd/ { etcd = NR }
			END { print (wmgwd && wmgwd < frr && wmgwd < etcd) ? "wmgwd first" : wmgwd " " frr " " etcd }'
}

step_reboot() {
	local victim old order unit wmgwd
	victim=$(owner_of_1) old=$(leader "$victim")
	start_ping
	in_machine "$victim" systemctl reboot || :
	await_or_go_on 120 has_given_all "$victim" || :
	expect "reboot: packets while it goes down" '0 lost' "$(stop_ping)"
	is_new() { local new && new=$(leader "$victim") && [ "$new" != "$old" ] && is_up "$victim" && is_active "$victim"; }
	await_or_go_on 180 is_new || :
	expect "reboot: wmgwd is back by itself" active "$(unit "$victim" ActiveState)"
	expect "reboot: stops in the order" 'wmgwd first' "$(stop_order "$victim")"
	wmgwd=$(unit "$victim" ExecMainStartTimestampMonotonic)
	order='wmgwd last'
	for unit in frr etcd; do
		[ "$(in_machine "$victim" systemctl show --property ActiveEnterTimestampMonotonic --value "$unit")" -le "$wmgwd" ] ||
			order="wmgwd before $unit"
	done
	expect "reboot: starts in the order" 'wmgwd last' "$order"
	expect "reboot: afterwards" served "$(served)"
}

# The next version of the package.
next_package() { # MACHINE
	rm -rf -- "$dir/next"
	dpkg-deb --raw-extract "$package" "$dir/next"
	sed -i 's/^Version: .*/&+next/' "$dir/next/DEBIAN/control"
	dpkg-deb --root-owner-group --build "$dir/next" "$dir/$1/root/next.deb" >/dev/null
}

# Prints the shell block with this number of the section of the upgrade from one version to the next.
upgrade_block() { # NUMBER
	awk -v wanted="$1" '/^## / { here = $0 == "## From one version to the next" }
		here && /^```sh$/ { number++; inside = 1; next }
		/^```$/ { inside = 0 }
		here && inside && number == wanted' "$top/contrib/upgrading.md"
}

step_upgrade() {
	local victim pid before said since
	victim=$(owner_of_1) pid=$(unit "$victim" MainPID) before=$(owners) since=$(now)
	next_package "$victim"
	mv -- "$dir/$victim/root/next.deb" "$dir/$victim/root/wmgwd_next.deb"
	start_ping
	said=$(script_in "$victim" "cd /root; rm wmgwd.deb; $(upgrade_block 1)" 2>&1)
	expect "upgrade: the package" '*upgraded; restart it*, same run' \
		"$(grep -o 'wmgwd: upgraded.*' <<<"$said"), $([ "$(unit "$victim" MainPID)" = "$pid" ] && echo same run || echo restarted)"
	is_said() { journal "$victim" --since "$since" | grep 'a run that is killed'; }
	await_or_go_on 10 is_said >/dev/null || :
	expect "upgrade: the journal" '*followed by one that keeps its VNIs*' "$(is_said)"
	script_in "$victim" "$(upgrade_block 2)"
	await_or_go_on 60 has_new_run "$victim" "$pid" || :
	sleep 5
	expect "upgrade: owners" "$before" "$(owners)"
	expect "upgrade: packets" '0 lost' "$(stop_ping)"
	expect "upgrade: afterwards" served "$(served)"
}

step_restart() {
	local victim
	victim=$(owner_of_1)
	start_ping
	in_machine "$victim" systemctl restart wmgwd
	expect "restart with a drain" active "$(unit "$victim" ActiveState)"
	expect "restart with a drain: packets" '0 lost' "$(stop_ping)"
	expect "restart with a drain: afterwards" served "$(served)"
}

# Runs with one more line in the options, and takes it out again.
with_option() { # MACHINE LINE COMMAND...
	local machine=$1 options=$dir/$1/etc/default/wmgwd
	cp --archive -- "$options" "$dir/options"
	# Written in place: the file keeps its owner.
	echo "$2" >>"$options"
	shift 2
	"$@"
	cat -- "$dir/options" >"$options"
}

refused_restart() { # MACHINE
	in_machine "$1" systemctl restart wmgwd >/dev/null 2>&1 || :
	sleep 3
	echo "$(unit "$1" ActiveState), status $(unit "$1" ExecMainStatus), $(unit "$1" NRestarts) restarts"
}

refused_reload() { # MACHINE
	local pid
	pid=$(unit "$1" MainPID)
	in_machine "$1" systemctl reload wmgwd >/dev/null 2>&1 && echo -n "taken, " || echo -n "refused, "
	[ "$(unit "$1" MainPID)" = "$pid" ] && unit "$1" ActiveState
}

step_wrong_option() {
	local victim since
	victim=$(owner_of_1) since=$(now)
	expect "wrong option: reload" 'refused, active' "$(with_option "$victim" WMGWD_SETTLE=long refused_reload "$victim")"
	expect "wrong option: restart" 'failed, status 2, 0 restarts' \
		"$(with_option "$victim" WMGWD_SETTLE=long refused_restart "$victim")"
	expect "wrong option: at priority err" '*WMGWD_SETTLE*' \
		"$(journal "$victim" --since "$since" --priority err | grep WMGWD_SETTLE | tail -n 1)"
	expect "wrong option: the others" served "$(served)"
	in_machine "$victim" systemctl start wmgwd
}

step_misspelt() {
	local victim since
	victim=$(owner_of_1) since=$(now)
	with_option "$victim" WMGWD_MAX_VNI=5 refused_reload "$victim" >"$dir/reload"
	expect "misspelt option: reload" 'taken, active' "$(cat "$dir/reload")"
	is_warned() { journal "$victim" --since "$since" --priority warning | grep WMGWD_MAX_VNI; }
	# journald may be a moment behind a process that has ended.
	await_or_go_on 10 is_warned >/dev/null || :
	expect "misspelt option: warning" '*is WMGWD_MAXVNI meant*' "$(is_warned)"
}

step_missing_file() {
	local victim option
	for option in WMGWD_CACERT WMGWD_PASSWORD_FILE; do
		victim=$(owner_of_1)
		expect "missing file ($option): reload" 'refused, active' \
			"$(with_option "$victim" "$option=/nonexistent" refused_reload "$victim")"
		expect "missing file ($option): restart" 'failed, status 2, 0 restarts' \
			"$(with_option "$victim" "$option=/nonexistent" refused_restart "$victim")"
		in_machine "$victim" systemctl start wmgwd
		await_or_go_on 90 is_calm || :
	done
}

step_metrics_port() {
	local victim since
	victim=$(owner_of_1) since=$(now)
	script_in "$victim" 'systemd-run --quiet --unit squatter python3 -m http.server --bind 127.0.0.1 9798'
	await 20 "port 9798 to be taken" script_in "$victim" 'exec 3<>/dev/tcp/127.0.0.1/9798' 2>/dev/null
	with_option "$victim" WMGWD_METRICS=127.0.0.1:9798 in_machine "$victim" systemctl restart wmgwd
	expect "metrics port taken" 'active, *127.0.0.1:9798*' \
		"$(unit "$victim" ActiveState), $(journal "$victim" --since "$since" --priority warning | grep 9798 | head -n 1)"
	in_machine "$victim" systemctl stop squatter
	answers() { [[ $(http_get "$victim" /healthz) == *200* ]]; }
	await_or_go_on 90 answers || :
	expect "metrics port free again" answers "$(answers && echo answers || echo silent)"
	in_machine "$victim" systemctl restart wmgwd
}

step_check_as_root() {
	local victim since status=0
	victim=$(owner_of_1) since=$(now)
	in_machine "$victim" sudo wmgwd check --env-file /etc/default/wmgwd --name "$victim" >"$dir/check.log" 2>&1 ||
		status=$?
	expect "check through sudo: status" 0 "$status"
	expect "check through sudo: journal" '' "$(journal "$victim" --since "$since" --priority info)"
}

pam_lines() { # MACHINE TIME
	in_machine "$1" journalctl --no-pager --quiet --output cat --identifier unix_chkpwd --since "$2" | wc -l
}

step_noise() {
	local victim line since
	victim=$(owner_of_1)
	since=$(now)
	sleep 35
	# An audit of FRR each 30 s.
	expect "lines of PAM in 35 s at rest" 0 "$(pam_lines "$victim" "$since")"
	line=$(grep -o "echo 'account[^\`]*" "$top/README.md")
	script_in "$victim" "$line"
	since=$(now)
	in_machine "$victim" systemctl restart wmgwd
	await_or_go_on 90 is_calm || :
	expect "lines of PAM in a restart, with the README's line" 0 "$(pam_lines "$victim" "$since")"
	expect "the README's line: afterwards" served "$(served)"
}

step_security() {
	local said
	said=$(in_machine gw1 systemd-analyze security --no-pager wmgwd | tail -n 1)
	expect "systemd-analyze security" '*: [0-2].[0-9] *' "$said"
	# shellcheck disable=SC2016
	said=$(in_machine gw1 bash -c 'nsenter --target "$(systemctl show --property MainPID --value wmgwd)" --mount -- \
		findmnt --noheadings --output TARGET,OPTIONS --list | awk "\$1 ~ /^.proc.sys(.net)?$/ { split(\$2, o, \",\"); print \$1, o[1] }" | sort -u | paste -s -d " "')
	expect "what the daemon may write below /proc/sys" '/proc/sys ro /proc/sys/net rw' "$said"
}

step_purge() {
	local victim said
	victim=$(owner_of_1)
	expect "before the removal: tables of nftables" '*wmgwd*' "$(in_machine "$victim" nft list tables)"
	start_ping
	said=$(in_machine "$victim" apt-get remove --yes wmgwd 2>&1)
	expect "remove: packets" '0 lost' "$(stop_ping)"
	expect "remove: its VNIs" drained "$(has_given_all "$victim" && echo drained || owners)"
	said+=$(in_machine "$victim" dpkg --purge wmgwd 2>&1)
	expect "purge: remarks" '' "$(grep -i -E 'not empty|warning|error|failed' <<<"$said" || :)"
	expect "purge: what is left" '' "$(script_in "$victim" "getent passwd wmgwd; ls -d /usr/sbin/wmgwd \
		/etc/default/wmgwd /usr/lib/systemd/system/wmgwd.service /etc/systemd/system/*/wmgwd.service 2>/dev/null
		nft list tables | grep wmgwd" || :)"
}
