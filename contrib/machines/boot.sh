# shellcheck shell=bash
# Part of machines.sh: root file systems, machines, and the network between them.
#
#   gw1 gw2 gw3   gateways: wmgwd, FRR and an etcd member each
#   core          access point and route reflector on `underlay`, upstream router on `uplink`
#   st1           a station in VNI 1, behind core; it pings core's uplink address through the owner of VNI 1

gateways=(gw1 gw2 gw3)
machines=("${gateways[@]}" core)
vnis=5

# What a machine has beyond a minimal Debian.
packages=(
	adduser dbus etcd-client etcd-server frr frr-pythontools iproute2 libpam-systemd nftables openssl procps sudo
	systemd systemd-sysv udev
)

# Makes target/machines/<release>.tar unless it is there: the root that all machines have below their own files.
make_root() {
	root=$top/target/machines/$release.tar
	local list="${packages[*]}" mirror key=/usr/share/keyrings/debian-archive-keyring.gpg
	mkdir -p "${root%/*}"
	if [ -e "$root" ] && [ "$(cat "$root.packages" 2>/dev/null)" = "$list" ]; then
		return
	fi
	# The first mirror in the machine's own configuration that is Debian's main archive.
	mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk '$3 == "main" && $2 !~ /security|updates|backports/ { print $1; exit }')
	[ -n "$mirror" ] || die "apt knows no mirror of Debian's main archive"
	echo "machines: making a root of $release"
	rm -f "$root" "$root.packages"
	mmdebstrap --quiet --variant=minbase --mode=root --include="${list// /,}" \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$release" "$root" "deb [signed-by=$key] $mirror $release main" </dev/null || return 1
	echo "$list" >"$root.packages"
}

# --- The host's side: runs in mount, pid and network namespaces of its own -----------------------

prepare() {
	local machine network
	mount --make-rprivate /
	mount -t tmpfs tmpfs /run
	# systemd in a machine is to find what it finds on hardware: version 2, and nothing else.
	if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
	fi
	root=$top/target/machines/$release.tar
	mkdir -p "$dir/base" "$dir/pid"
	tar -C "$dir/base" -xf "$root"
	for network in underlay uplink mgmt; do
		ip link add "$network" type bridge stp_state 0 mcast_snooping 0
		ip link set "$network" up
	done
	ip netns add st1
	for machine in "${machines[@]}"; do
		ip netns add "$machine"
		ip -n "$machine" link set lo up
		for network in underlay uplink mgmt; do
			ip link add "$network-$machine" mtu 1600 type veth \
				peer name "$network" mtu 1600 netns "$machine"
			ip link set "$network-$machine" master "$network" up
		done
		make_machine "$machine"
	done
	ip -n core link add st1 type veth peer name eth0 netns st1
	ip -n st1 addr add 10.64.1.10/24 dev eth0
	ip -n st1 link set eth0 up
	ip -n st1 route add default via 10.64.1.1
}

# The machine's own files: its name, network and FRR, as an operator would write them.
make_machine() { # MACHINE
	local upper=$dir/$1.upper number=${1#gw}
	mkdir -p "$upper/etc/frr" "$upper/usr/local/sbin" "$upper/var/log/journal" "$dir/$1.work" "$dir/$1"
	mkdir -p "$upper/etc/systemd/system/multi-user.target.wants"
	echo "$1" >"$upper/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$1" >"$upper/etc/hosts"
	# What a name service that is away would hold up.
	: >"$upper/etc/resolv.conf"
	echo 'service integrated-vtysh-config' >"$upper/etc/frr/vtysh.conf"
	cp -- "$dir/base/etc/frr/daemons" "$upper/etc/frr/daemons"
	sed -i -E 's/^(bgpd|ospfd|bfdd)=no/\1=yes/' "$upper/etc/frr/daemons"
	if [ "$1" = core ]; then
		core_frr >"$upper/etc/frr/frr.conf"
		core_network >"$upper/usr/local/sbin/machine-network"
	else
		gateway_frr "$number" >"$upper/etc/frr/frr.conf"
		gateway_network "$number" >"$upper/usr/local/sbin/machine-network"
	fi
	chmod 755 "$upper/usr/local/sbin/machine-network"
	chmod 640 "$upper"/etc/frr/*
	# By the names in the machine: the numbers differ from this host's.
	chroot "$dir/base" getent passwd frr | cut -d: -f3-4 | xargs -I{} chown -R {} "$upper/etc/frr"
	chmod --reference="$dir/base/etc/frr" "$upper/etc/frr"
	cat >"$upper/etc/systemd/system/machine-network.service" <<-'UNIT'
		[Unit]
		Description=Addresses and bridges of the machine
		DefaultDependencies=no
		Before=network.target network-online.target
		Wants=network.target

		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/usr/local/sbin/machine-network

		[Install]
		WantedBy=multi-user.target
	UNIT
	ln -s ../machine-network.service "$upper/etc/systemd/system/multi-user.target.wants/"
	[ "$1" != core ] || ln -s /dev/null "$upper/etc/systemd/system/etcd.service"
	mount -t overlay overlay -o "lowerdir=$dir/base,upperdir=$upper,workdir=$dir/$1.work" "$dir/$1"
}

gateway_frr() { # NUMBER
	local vni
	# With the short timers that the file proposes: a router that boots waits for one dead interval.
	sed -e "s/\b10\.0\.1\.11\b/10.0.1.1$1/g" -e 's/^ ! \(ip ospf [a-z]*-interval [0-9]*\)$/ \1/' "$top/frr.conf.example"
	for ((vni = 1; vni <= vnis; vni++)); do
		printf 'interface br%d\n ip ospf cost 65535\nexit\n' "$vni"
	done
}

core_frr() {
	local number
	cat <<-'CONFIG'
		ip forwarding
		bfd
		 profile uplink
		  receive-interval 300
		  transmit-interval 300
		 exit
		exit
		interface uplink
		 ip ospf hello-interval 1
		 ip ospf dead-interval 4
		 ip ospf bfd
		 ip ospf bfd profile uplink
		exit
		router bgp 65000
		 bgp router-id 10.0.1.17
		 no bgp default ipv4-unicast
		 neighbor fabric peer-group
		 neighbor fabric remote-as 65000
		 neighbor fabric timers 1 3
		 neighbor fabric timers connect 1
		 neighbor fabric bfd
		 neighbor fabric bfd profile uplink
	CONFIG
	for number in 1 2 3; do
		echo " neighbor 10.0.1.1$number peer-group fabric"
	done
	cat <<-'CONFIG'
		 address-family l2vpn evpn
		  neighbor fabric activate
		  neighbor fabric route-reflector-client
		  advertise-all-vni
		 exit-address-family
		exit
		router ospf
		 ospf router-id 10.0.0.1
		 timers lsa min-arrival 0
		 network 10.0.2.0/24 area 0.0.0.0
		exit
	CONFIG
}

# At a boot the kernel has forgotten all of this. The network namespace of a machine outlives its reboot.
gateway_network() { # NUMBER
	cat <<-NETWORK
		#!/bin/bash
		set -eu
		nft flush ruleset
		for vni in \$(seq 1 $vnis); do
			ip link del vxlan\$vni 2>/dev/null || :
			ip link del br\$vni 2>/dev/null || :
		done
		for network in underlay uplink mgmt; do
			ip addr flush dev \$network
			ip link set \$network up
		done
		ip addr add 10.0.1.1$1/24 dev underlay
		ip addr add 10.0.2.1$1/24 dev uplink
		ip addr add 10.0.3.1$1/24 dev mgmt
		for vni in \$(seq 1 $vnis); do
			ip link add br\$vni address 02:00:0$1:00:00:0\$vni type bridge stp_state 0 mcast_snooping 0
			echo 8 >/proc/sys/net/ipv4/conf/br\$vni/arp_ignore
			ip link add vxlan\$vni type vxlan id \$vni local 10.0.1.1$1 dstport 4789 nolearning
			ip link set vxlan\$vni master br\$vni
			bridge link set dev vxlan\$vni learning off neigh_suppress off
			ip addr add 10.64.\$vni.1/24 dev br\$vni
			ip link set vxlan\$vni up
			ip link set br\$vni up
		done
	NETWORK
}

core_network() {
	cat <<-'NETWORK'
		#!/bin/bash
		set -eu
		for network in underlay uplink mgmt; do
			ip link set $network up
		done
		ip addr add 10.0.1.17/24 dev underlay
		ip addr add 10.0.2.1/24 dev uplink
		ip link add br1 type bridge stp_state 0 mcast_snooping 0
		ip link add vxlan1 type vxlan id 1 local 10.0.1.17 dstport 4789 nolearning
		ip link set vxlan1 master br1
		bridge link set dev vxlan1 learning off neigh_suppress off
		ip link set st1 master br1 up
		ip link set vxlan1 up
		ip link set br1 up
	NETWORK
}

boot() { # MACHINE
	local cgroup=/sys/fs/cgroup/${dir##*/}-$1
	mkdir -p "$cgroup"
	(
		trap - EXIT INT TERM
		echo "$BASHPID" >"$cgroup/cgroup.procs"
		# nspawn gives these two only with a network namespace that it makes itself.
		export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
		status=133
		# With that it asks to be started again: the machine reboots.
		while [ "$status" -eq 133 ]; do
			systemd-nspawn --quiet --capability=CAP_NET_ADMIN --directory "$dir/$1" --boot --machine "$1" \
				--register=no --keep-unit --network-namespace-path="/run/netns/$1" --resolv-conf=off \
				--console=pipe </dev/null >>"$dir/$1.console" 2>&1 &
			echo $! >"$dir/pid/$1"
			status=0
			wait $! || status=$?
		done
	) &
}

# The machine's first process.
leader() { # MACHINE
	pgrep --parent "$(cat "$dir/pid/$1")" --oldest
}

# Runs a command in a machine, as root and with a root shell's environment.
in_machine() { # MACHINE COMMAND...
	local pid
	pid=$(leader "$1") || return 125
	shift
	nsenter --target "$pid" --all -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 "$@" </dev/null
}

# A script for bash in a machine.
script_in() { # MACHINE TEXT
	in_machine "$1" bash -ec "$2"
}

is_up() { # MACHINE
	local state
	state=$(in_machine "$1" systemctl is-system-running 2>/dev/null) || :
	[[ $state == running || $state == degraded ]]
}

await() { # SECONDS WHAT COMMAND...
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || die "waited in vain for $what"
		sleep 0.1
	done
}

# As `await`, but goes on.
await_or_go_on() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.1
	done
}

clean_up() {
	local status=$? machine pid
	trap '' INT TERM
	for machine in "${machines[@]}"; do
		if [ "$status" -ne 0 ] && [ -e "$dir/$machine.console" ]; then
			tail -n 3 "$dir/$machine.console" >&2
		fi
		! pid=$(leader "$machine" 2>/dev/null) || kill -KILL "$pid" 2>/dev/null || :
	done
	wait || :
	for machine in "${machines[@]}"; do
		find "/sys/fs/cgroup/${dir##*/}-$machine" -depth -type d -exec rmdir {} + 2>/dev/null || :
	done
	exit "$status"
}
