#!/bin/bash
# Builds the static binary from the lock file and checks it: no interpreter, no shared library, position
# independent, not larger than it should be, and it runs. Prints its path and size.
#
#   contrib/static.sh [--no-default-features]

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
# Paths of this machine must not get into the binary.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/wmgwd --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
cargo build --release --locked --target "$target" "$@"
binary=${CARGO_TARGET_DIR:-target}/$target/release/wmgwd

die() {
	echo "static.sh: $binary: $*" >&2
	exit 1
}

# Generous: about a quarter above what benches/README.md names.
most=6000000
headers=$(readelf --wide --file-header --program-headers --dynamic "$binary")
! grep -q INTERP <<<"$headers" || die "has an interpreter, so it is not static"
! grep -q '(NEEDED)' <<<"$headers" || die "needs shared libraries"
grep -q 'Type: *DYN' <<<"$headers" || die "is not position independent"
size=$(stat -c %s "$binary")
[ "$size" -le "$most" ] || die "has $size bytes, more than $most"
"$binary" --version >/dev/null || die "does not run"
echo "$binary: $size bytes, static, position independent"
