#!/bin/bash
# Runs every test of wmgwd: style, lints, units, cluster simulation, real etcd, real FRR and real packets.
# Installs what the tests need from Debian's packages first, and cleans up behind itself, also on Ctrl-C.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" != 0 ]; then
	echo "contrib/test.sh: needs root: the tests make network namespaces and run FRR in them" >&2
	exit 1
fi
if ! command -v cargo >/dev/null; then
	echo "contrib/test.sh: needs cargo: install Rust first (1.85 or later)" >&2
	exit 1
fi

say() { printf '\n== %s\n' "$*"; }

say "Debian packages that the tests need"
contrib/install-deps.sh

# A directory for everything that tests leave in /tmp, so that nothing stays behind.
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export TMPDIR=$work

say "cargo fmt"
cargo fmt --check

say "cargo clippy"
cargo clippy --all-targets -- -D warnings

say "cargo test"
cargo test --no-fail-fast

# Debian 12 has etcd 3.4, Debian 13 has etcd 3.5: what speaks to etcd is tested with both.
if [[ $(etcd --version) != *" 3.5."* ]]; then
	say "etcd of Debian trixie"
	if contrib/lab/unpack.sh target/trixie-etcd etcd-server; then
		export TEST_ETCD=$PWD/target/trixie-etcd/usr/bin/etcd
		cargo test --lib the_model_is_an_etcd
		cargo test --no-fail-fast --test etcd --test cluster --test crashes --test mixed -- --skip real_waits
	else
		echo "contrib/test.sh: SKIPPED: the machine's mirror of Debian does not have trixie's packages" >&2
	fi
fi

say "static binary"
contrib/static.sh
