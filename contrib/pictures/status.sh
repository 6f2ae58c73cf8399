#!/bin/bash
# Draws contrib/pictures/status.svg from a real run: three nodes with --mock on an etcd of their own, one of them
# told to drain, and what `wmgwd status` says at that moment, as it looks on a terminal.
#
# usage: contrib/pictures/status.sh [FILE]

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
picture=${1:-contrib/pictures/status.svg}
client=24879 peer=24880

cargo build --release --quiet
wmgwd=${CARGO_TARGET_DIR:-target}/release/wmgwd
dir=$(mktemp -d)
pids=()
clean_up() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || :
	wait
	rm -rf -- "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

etcd --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$client" \
	--advertise-client-urls "http://127.0.0.1:$client" --listen-peer-urls "http://127.0.0.1:$peer" \
	--initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" \
	>"$dir/etcd.log" 2>&1 &
pids+=($!)
export WMGWD_ETCD=http://127.0.0.1:$client
for node in gw1 gw2 gw3; do
	"$wmgwd" --name "$node" --mock --maxvni 300 --join-hold 0 >"$dir/$node.log" 2>&1 &
	pids+=($!)
done

# What a command says on a terminal, below the command itself.
shown() { # ARGUMENT...
	printf '$ wmgwd %s\n' "$*"
	COLUMNS=100 script --quiet --return --command "$wmgwd $*" /dev/null </dev/null | tr -d '\r'
	printf '\n'
}

# Until each of the three has some VNIs and none is on its way.
deadline=$((SECONDS + 60))
until "$wmgwd" status 2>/dev/null |
	awk '/all served/ { ok = 1 } /^gw/ { n++; if ($7 == 0) ok = 0 } / moving /{ ok = 0 } END { exit !(ok && n == 3) }'; do
	[ "$SECONDS" -lt "$deadline" ] || { echo "status.sh: the nodes have not settled" >&2; exit 1; }
	sleep 0.2
done
{
	shown drain gw1 --no-wait
	# The first look that sees the migrations.
	until "$wmgwd" status | grep -q '^moving'; do :; done
	shown status
	"$wmgwd" drain gw1 >/dev/null
	shown status 1 2 3
} >"$dir/terminal"

# Colours as a terminal would show them: 31 to 33, bold, and off.
awk '
	BEGIN { colour["31"] = "#ff6b6b"; colour["32"] = "#69db7c"; colour["33"] = "#ffd43b" }
	function plain(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); return text }
	{
		line = ""; open = 0; rest = $0
		while (match(rest, /\033\[[0-9;]*m/)) {
			code = substr(rest, RSTART + 2, RLENGTH - 3)
			line = line plain(substr(rest, 1, RSTART - 1))
			rest = substr(rest, RSTART + RLENGTH)
			if (open) { line = line "</tspan>"; open = 0 }
			if (code == "1") { line = line "<tspan font-weight=\"bold\">"; open = 1 }
			else if (code in colour) { line = line "<tspan fill=\"" colour[code] "\">"; open = 1 }
		}
		line = line plain(rest) (open ? "</tspan>" : "")
		bare = $0; gsub(/\033\[[0-9;]*m/, "", bare)
		if (length(bare) > width) width = length(bare)
		lines[++count] = line
	}
	END {
		while (count && lines[count] == "") count--
		w = int(width * 8.43) + 32; h = count * 18 + 30
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", w, h, w, h
		print "<title>wmgwd status while a gateway is drained</title>"
		printf "<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#1e1e2e\"/>\n", w, h
		print "<g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\" fill=\"#e6e6e6\" xml:space=\"preserve\">"
		for (n = 1; n <= count; n++)
			if (lines[n] != "") printf "<text x=\"16\" y=\"%d\">%s</text>\n", n * 18 + 10, lines[n]
		print "</g>\n</svg>"
	}' "$dir/terminal" >"$picture"
echo "$picture"
