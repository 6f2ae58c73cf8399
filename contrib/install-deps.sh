#!/bin/bash
# Installs what the lab (contrib/lab), the machines (contrib/machines.sh), the demo (contrib/demo.sh) and the tests with real FRR and etcd need,
# on Debian 12 or 13. Installs only what is missing, and leaves no service running that was not there before:
# the lab starts its own FRR and etcd in namespaces.

set -euo pipefail

die() {
	echo "install-deps: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || die "must be root: it runs apt-get"
if ! command -v apt-get >/dev/null || [ ! -e /etc/debian_version ]; then
	die "needs Debian (apt-get); elsewhere install etcd, FRR and iproute2 by hand"
fi

# Package, and what it is for.
packages=(
	adduser         # the package's user
	ca-certificates # cargo fetches crates over TLS
	dpkg-dev        # builds the Debian package
	e2fsprogs       # a disk that stalls (mkfs.ext4)
	etcd-client     # etcdctl: readiness in the lab, the demo's table
	etcd-server     # the database
	fish            # its completion
	frr             # zebra, bgpd, ospfd, bfdd, vtysh
	frr-pythontools # frr-reload.py: what a reload of FRR does
	gcc             # links the daemon
	groff-base      # man --warnings
	iproute2        # namespaces, VXLAN, bridges
	iputils-arping  # ARP by hand
	iputils-ping    # the packets that are counted
	libc6-dev       # links the daemon
	lintian         # checks the Debian package
	man-db          # man --warnings
	mandoc          # checks and shows the manual page
	mmdebstrap      # root file systems of contrib/machines.sh
	mount           # a disk that stalls
	nftables        # packet loss for tests
	procps          # sysctl
	prometheus      # promtool: checks the alerts and the metrics
	systemd         # systemd-analyze: checks the unit
	systemd-container # systemd-nspawn: boots the machines of contrib/machines.sh
	tcpdump         # looking at packets
	util-linux      # nsenter, unshare, setpriv
	zsh             # its completion
)

missing=()
for package in "${packages[@]}"; do
	status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || :)
	[ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
	echo "install-deps: everything is there"
	exit
fi
echo "install-deps: installing ${missing[*]}"

# Debian starts a service when its package is installed. An etcd on port 2379 or an FRR of the machine's own
# is not what the caller asked for, so no service is started while this runs; what runs already stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	printf '#!/bin/sh\n# Put here by install-deps.sh for as long as it runs.\nexit 101\n' >"$policy"
	chmod 755 "$policy"
else
	echo "install-deps: $policy is there already and decides whether services are started"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends "${missing[@]}"

# They must not come up with the next boot either.
for package in etcd-server:etcd frr:frr prometheus:prometheus; do
	[[ " ${missing[*]} " == *" ${package%:*} "* ]] || continue
	service=${package#*:}
	if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
		systemctl disable --now "$service" >/dev/null 2>&1 || :
		echo "install-deps: service $service is installed, but neither running nor enabled"
	elif command -v update-rc.d >/dev/null; then
		update-rc.d "$service" disable >/dev/null 2>&1 || :
	fi
done
echo "install-deps: done"
