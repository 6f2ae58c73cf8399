#!/bin/bash
# Tests the Debian package under a real systemd: boots three gateways and a router from Debian's own packages
# (systemd-nspawn, FRR, etcd), installs the .deb, and goes through an operator's days: start, drain, crashes,
# restarts of FRR, an etcd that is away, reboot, upgrade, wrong options, missing files, purge. Prints a table of
# step, expected and seen, and ends with status 1 if one differs.
#
# Needs root, what contrib/install-deps.sh installs, and about 1.5 GB below --dir. The root file systems come from the
# mirror that this machine's apt uses, and are kept in target/machines for the next run. Everything else is removed at
# the end, also on Ctrl-C. Status 3: the mirror does not have the packages.

set -euo pipefail

usage() {
	cat <<'USAGE'
usage: machines.sh [--release bookworm|trixie] [--package FILE] [--dir DIR] [--only WORD] [--shell]

  --release NAME  Debian release of the machines (default bookworm)
  --package FILE  the .deb to test (default: contrib/deb.sh builds one)
  --dir DIR       where the machines' disks are made (default /var/tmp)
  --only WORD     of the steps after the first day, only those whose function in contrib/machines/steps.sh has this word
  --shell         no steps: a shell once the gateways serve
USAGE
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname -- "$here")
release=bookworm package='' disks=/var/tmp only='' shell=''
while [ $# -gt 0 ]; do
	case $1 in
	--release) release=$2 && shift 2 ;;
	--package) package=$(realpath -- "$2") && shift 2 ;;
	--dir) disks=$2 && shift 2 ;;
	--only) only=$2 && shift 2 ;;
	--shell) shell=1 && shift ;;
	-h | --help) usage && exit ;;
	*) usage >&2 && exit 2 ;;
	esac
done

die() {
	echo "machines: $*" >&2
	exit 1
}

# shellcheck source=contrib/machines/boot.sh
. "$here/machines/boot.sh"
# shellcheck source=contrib/machines/steps.sh
. "$here/machines/steps.sh"

if [ -z "${WMGWD_MACHINES_DIR-}" ]; then
	[ "$(id -u)" -eq 0 ] || die "must be root: it boots machines"
	for tool in mmdebstrap systemd-nspawn; do
		command -v "$tool" >/dev/null || die "needs $tool: contrib/install-deps.sh installs it"
	done
	cd -- "$top"
	[ -n "$package" ] || package=$(contrib/deb.sh)
	make_root || exit 3
	WMGWD_MACHINES_DIR=$(mktemp -d -- "$disks/wmgwd-machines.XXXXXX")
	export WMGWD_MACHINES_DIR
	trap 'rm -rf -- "$WMGWD_MACHINES_DIR"' EXIT
	trap : INT TERM
	arguments=(--release "$release" --package "$package" --only "$only" ${shell:+--shell})
	# All machines, mounts and networks end with the first process of these namespaces.
	unshare --mount --pid --net --fork --kill-child --mount-proc -- "$BASH" "$here/machines.sh" "${arguments[@]}"
	exit
fi

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
dir=$WMGWD_MACHINES_DIR
begun=$SECONDS
prepare
for machine in "${machines[@]}"; do
	boot "$machine"
done
for machine in "${machines[@]}"; do
	await 60 "$machine to boot" is_up "$machine"
	in_machine "$machine" systemctl is-active --quiet machine-network ||
		die "$machine has no network: $(in_machine "$machine" systemctl status --no-pager machine-network)"
done
first_day
if [ -n "$shell" ]; then
	"$BASH" --rcfile <(declare -f && declare -p gateways machines vnis dir top package) -i || :
	exit 0
fi
for step in "${steps[@]}"; do
	[[ $step != *"$only"* ]] || run_step "$step"
done
show_table
