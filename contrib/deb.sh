#!/bin/bash
# Makes a Debian package of wmgwd: binary, systemd unit, manual pages, shell completions, example configuration.
# Needs dpkg-dev and gzip, neither root nor network (but what cargo needs). Two runs at the same commit with the
# same binary make the same file.
#
# usage: contrib/deb.sh [--binary FILE] [--output DIR]
#
#   --binary FILE   package this binary instead of building one (cargo build --release)
#   --output DIR    where to put wmgwd_<version>_<architecture>.deb (default: target/debian)

set -euo pipefail

die() {
	echo "deb.sh: $*" >&2
	exit 1
}

top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
binary='' output=$top/target/debian
while [ $# -gt 0 ]; do
	case $1 in
	--binary | --output)
		[ $# -ge 2 ] || die "$1 needs a value"
		printf -v "${1#--}" %s "$(realpath -m -- "$2")"
		shift 2
		;;
	*) die "unknown argument $1; takes --binary FILE and --output DIR" ;;
	esac
done
for tool in dpkg-deb dpkg-shlibdeps dpkg-architecture gzip strip; do
	command -v "$tool" >/dev/null || die "needs $tool: contrib/install-deps.sh installs it"
done
cd -- "$top"
if [ -z "$binary" ]; then
	cargo build --release --quiet
	# Where cargo builds is for its environment and configuration to say, such as CARGO_TARGET_DIR.
	target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	binary=$target/release/wmgwd
fi
[ -x "$binary" ] || die "$binary is no program"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg-architecture -q DEB_HOST_ARCH)
maintainer=${DEBFULLNAME:-wmgwd packagers} email=${DEBEMAIL:-root@localhost}
# The time of the commit, so that the same source gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
tree=$work/tree
doc=$tree/usr/share/doc/wmgwd
umask 022

put() { # MODE FILE TARGET
	install -D -m "$1" -- "$2" "$tree/$3"
}
put 755 "$binary" usr/sbin/wmgwd
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/sbin/wmgwd"
put 644 contrib/wmgwd.service usr/lib/systemd/system/wmgwd.service
# The comment at its top is about doing by hand what the package does.
sed -i -e 's#/usr/local/sbin/#/usr/sbin/#' -e '1,/^$/d' "$tree/usr/lib/systemd/system/wmgwd.service"
# A name and a password of etcd may come to stand in it.
put 640 contrib/wmgwd.default etc/default/wmgwd
put 644 man/wmgwd.8 usr/share/man/man8/wmgwd.8
put 644 man/wmgwd.7 usr/share/man/man7/wmgwd.7
put 644 contrib/completions/wmgwd.bash usr/share/bash-completion/completions/wmgwd
put 644 contrib/completions/_wmgwd usr/share/zsh/vendor-completions/_wmgwd
put 644 contrib/completions/wmgwd.fish usr/share/fish/vendor_completions.d/wmgwd.fish
put 644 frr.conf.example usr/share/doc/wmgwd/examples/frr.conf.example
for file in alerts.yml dashboard.json; do
	put 644 "contrib/prometheus/$file" "usr/share/doc/wmgwd/examples/prometheus/$file"
done
put 644 contrib/wmgwd-witness.service usr/share/doc/wmgwd/examples/wmgwd-witness.service
put 644 README.md usr/share/doc/wmgwd/README.md
put 644 contrib/etcd/README.md usr/share/doc/wmgwd/etcd.md
put 644 contrib/upgrading.md usr/share/doc/wmgwd/upgrading.md
{
	printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
	printf 'Upstream-Name: wmgwd\n\nFiles: *\nCopyright: %s\nLicense: Expat\n' \
		"$(sed -n 's/^Copyright (c) //p' LICENSE)"
	sed -e '1,/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE | sed '1{/^ \.$/d}'
} >"$doc/copyright"
{
	printf 'wmgwd (%s) unstable; urgency=medium\n\n  * Packaged from its source; see README.md.\n\n' "$version"
	printf ' -- %s <%s>  %s\n' "$maintainer" "$email" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >"$doc/changelog"
gzip -9n "$doc/changelog" "$doc/README.md" "$tree/usr/share/man/man8/wmgwd.8" \
	"$tree/usr/share/man/man7/wmgwd.7"
mkdir -p "$tree/usr/share/lintian/overrides"
cat >"$tree/usr/share/lintian/overrides/wmgwd" <<'OVERRIDES'
# May hold a password.
wmgwd: non-standard-file-perm 0640 != 0644 [etc/default/wmgwd]
# It is started by hand once it is configured, and its options come from the environment.
wmgwd: package-supports-alternative-init-but-no-init.d-script [usr/lib/systemd/system/wmgwd.service]
# The licence names its holders without a year.
wmgwd: copyright-without-copyright-notice
# An operator enabled it by hand, with systemctl; deb-systemd-helper does not know of that.
wmgwd: maintainer-script-calls-systemctl [prerm:7]
# Packaged from its own source tree, not for the archive.
wmgwd: initial-upload-closes-no-bugs [usr/share/doc/wmgwd/changelog.gz:1]
OVERRIDES

mkdir -p "$tree/DEBIAN" "$work/debian"
printf 'Source: wmgwd\n\nPackage: wmgwd\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd -- "$work" && dpkg-shlibdeps -O "$tree/usr/sbin/wmgwd" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
cat >"$tree/DEBIAN/control" <<CONTROL
Package: wmgwd
Version: $version
Architecture: $architecture
Maintainer: $maintainer <$email>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: adduser, frr (>= 8.4)${libraries:+, $libraries}
Recommends: etcd-server | etcd
Suggests: etcd-client, iproute2
Section: net
Priority: optional
Description: distributed gateway daemon for WiMoVE: one owner for every VNI
 Several gateways connect the overlay networks (VXLAN with BGP EVPN) of a
 WiMoVE network to the network upstream. The daemons share the VNIs through
 etcd, so that exactly one gateway answers ARP, advertises the EVPN routes and
 has the best OSPF cost for each; VNIs migrate when gateways join or leave,
 and fail over when one dies.
CONTROL
echo /etc/default/wmgwd >"$tree/DEBIAN/conffiles"
(cd -- "$tree" && find etc usr -type f ! -path etc/default/wmgwd -print0 | LC_ALL=C sort -z | xargs -0 md5sum) \
	>"$tree/DEBIAN/md5sums"

# Neither starts nor restarts anything: a gateway without options serves the wrong VNIs, and gateways that are
# upgraded at the same time must not all drain at once.
cat >"$tree/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	adduser --quiet --system --group --no-create-home --home /nonexistent wmgwd
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
	fi
	if [ -z "$2" ]; then
		echo "wmgwd: set its options in /etc/default/wmgwd, run wmgwd check, then: systemctl enable --now wmgwd"
	else
		echo "wmgwd: upgraded; restart it, one gateway after the other, see /usr/share/doc/wmgwd/upgrading.md"
	fi
fi
SCRIPT
# A stop drains: the VNIs are elsewhere before the files go.
cat >"$tree/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && command -v systemctl >/dev/null; then
	if [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop wmgwd.service
	fi
	systemctl --no-reload --quiet disable wmgwd.service || true
fi
SCRIPT
cat >"$tree/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if [ "$1" = purge ] && command -v deluser >/dev/null; then
	deluser --quiet --system wmgwd || true
fi
SCRIPT
chmod 755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/prerm" "$tree/DEBIAN/postrm"

mkdir -p "$output"
package=$output/wmgwd_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$tree" "$package" >/dev/null
echo "$package"
