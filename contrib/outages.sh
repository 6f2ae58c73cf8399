#!/bin/bash
# Measures what stations lose, fault by fault, in the lab (contrib/lab) with real FRR and real packets, and
# prints the table. Installs what is missing first; with --frr RELEASE that Debian release's FRR is unpacked
# into target/ and laid over the system's in the lab's nodes only.

set -euo pipefail

usage() {
	cat <<'USAGE'
usage: outages.sh [--frr RELEASE] [OPTIONS OF THE BENCHMARK...]

  --frr RELEASE   the FRR of this Debian release (for example trixie) instead of the installed one
  --list          names the rows
  --rows A,B      only these (default: all; each takes about a minute)
  --runs N        each row so often
  --minutes N     how long the row `rest` takes, in which nothing happens (default 1)
  --vnis N  --stations N   size of the network, and how many VNIs have traffic (default 12, 6)
  --json FILE  --svg FILE  everything that was measured; a picture of the outages by VNI
  --logs DIR      the logs of every run: daemons, FRR, etcd, and when it began (seconds since 1970)
  --ipv6          stations have both families, and the table has columns for both
  --announce WAY  costs (default) or routes; routes with --upstream ospf (default) or bgp
  --wmgwd OPTIONS options for every wmgwd, as one word
USAGE
}

top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
release='' options=()
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit ;;
	--frr)
		[ $# -ge 2 ] || { usage >&2 && exit 2; }
		release=$2
		shift 2
		;;
	# cargo runs the benchmark in the project's directory: files are the caller's.
	--json | --svg | --logs)
		[ $# -ge 2 ] || { usage >&2 && exit 2; }
		options+=("$1" "$(realpath -m -- "$2")")
		shift 2
		;;
	*)
		options+=("$1")
		shift
		;;
	esac
done
cd -- "$top"

if [ "$(id -u)" -ne 0 ]; then
	echo "outages: must be root: it makes network namespaces" >&2
	exit 1
fi
contrib/install-deps.sh
if [ -n "$release" ]; then
	mkdir -p target
	RELEASE=$release contrib/lab/unpack.sh "target/frr-$release" frr
	options+=(--usr "target/frr-$release/usr")
fi
cargo bench --bench outages -- "${options[@]}"
