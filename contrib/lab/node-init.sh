#!/bin/bash
# First process of a lab node: makes the node's own view of the machine, then lives until it is killed.
# Started by lab.sh inside the node's new namespaces; with its death the kernel ends every process of the
# node at once, as a power cut does.
#
# usage: node-init.sh STATE_DIR NAME router|switch|host USR

set -euo pipefail

state=$1 name=$2 role=$3 usr=$4

# /proc is still the one of the machine, so this is the pid that the outside knows this process by.
read -r outer_pid _ </proc/self/stat

hostname "$name"
# Another release's programs and libraries first, this one's where it has none.
[ -z "$usr" ] || mount -t overlay overlay -o "ro,lowerdir=$usr:/usr" /usr
# Paths from here on are relative: the state directory may itself lie below /run, which is covered now.
cd -- "$state"
mkdir -p etc-frr run/frr
mount --bind etc-frr /etc/frr
# The whole of /run, not only /run/frr: whatever a daemon leaves there belongs to this node alone.
mount --bind run /run
# FRR's crash logs, in directories named by pid: all nodes have the same pids.
mkdir -p var-tmp-frr /var/tmp/frr
mount --bind var-tmp-frr /var/tmp/frr
mount -t proc proc /proc
mount -t sysfs sysfs /sys

set_sysctl() { # PATH VALUE, skipped where the kernel was built without it
	[ ! -w "/proc/sys/net/$1" ] || echo "$2" >"/proc/sys/net/$1"
}

# Before any interface exists: each takes over `default` when it is made.
if [ "$role" = router ]; then
	set_sysctl ipv4/ip_forward 1
	# Packets may come in through one gateway and go back through another while a VNI moves.
	set_sysctl ipv4/conf/all/rp_filter 0
	set_sysctl ipv4/conf/default/rp_filter 0
	# Several hundred neighbours on one gateway are not an attack here.
	set_sysctl ipv4/neigh/default/gc_thresh3 8192
fi
if [ "$role" = switch ]; then
	set_sysctl ipv6/conf/all/disable_ipv6 1
	set_sysctl ipv6/conf/default/disable_ipv6 1
fi
# Where br_netfilter is loaded, bridged packets would pass through iptables too.
for table in iptables ip6tables arptables; do
	set_sysctl "bridge/bridge-nf-call-$table" 0
done
ip link set dev lo up

rm -f idle
mkfifo -m 600 idle
exec 3<>idle
# Renamed when complete, so that a reader of the file finds a finished node.
echo "$outer_pid" >pid.new
mv pid.new pid
cd /

# No process writes here. bash reaps what the node's daemons leave behind while it waits.
while :; do
	read -r -u 3 || :
done
