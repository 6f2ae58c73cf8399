#!/bin/bash
# Unpacks packages of another Debian release, and all that they need, into a directory: a second version of
# FRR or etcd for the lab (`lab.sh up --usr DIR/usr`), without installing anything. What the machine's own apt
# knows and has installed stays as it is; the packages come from the mirror that it uses.

set -euo pipefail

usage() {
	echo "usage: unpack.sh DIR PACKAGE...   (release: \$RELEASE, default trixie)"
}

die() {
	echo "unpack: $*" >&2
	exit 1
}

case ${1-} in
-h | --help) usage && exit ;;
esac
[ $# -ge 2 ] || { usage >&2 && exit 2; }
dir=$1
shift
release=${RELEASE:-trixie}

if [ -e "$dir/.complete" ] && [ "$(<"$dir/.complete")" = "$release $*" ]; then
	echo "unpack: $release's $* is in $dir already"
	exit
fi
# Never into a directory that another program made.
[ ! -e "$dir" ] || [ -e "$dir/.unpacking" ] || [ -e "$dir/.complete" ] || die "$dir is there, and this script did not make it"

# The first mirror in the machine's own configuration that is Debian's main archive.
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk '$3 == "main" && $2 !~ /security|updates|backports/ { print $1; exit }')
[ -n "$mirror" ] || die "apt knows no mirror of Debian's main archive"

rm -rf -- "$dir"
mkdir -p "$dir/.unpacking"
dir=$(cd -- "$dir" && pwd)
apt=$dir/.unpacking
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/none"
# apt as for a machine on which nothing is installed, so that libraries come along.
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$apt/sources.list"
options=(
	-o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/none"
	-o "Dir::Etc::Preferences=$apt/no-file" -o "Dir::Etc::PreferencesParts=$apt/none"
	-o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status"
	-o "Dir::Cache=$apt/cache" -o APT::Install-Recommends=0
	# The directories belong to the user that runs this.
	-o APT::Sandbox::User=root
)
apt-get "${options[@]}" --quiet=2 update
apt-get "${options[@]}" --quiet=2 --yes --download-only install "$@" >/dev/null
for package in "$apt"/cache/archives/*.deb; do
	dpkg-deb --extract "$package" "$dir"
done
# Nothing here is to run with another user's rights.
find "$dir" -xdev -type f -perm /6000 -exec chmod ug-s {} +
rm -rf -- "$apt"
echo "$release $*" >"$dir/.complete"
echo "unpack: $release's $* is in $dir ($(du -sh "$dir" | cut -f1))"
