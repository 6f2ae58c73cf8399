#!/bin/bash
# Draws contrib/pictures/dashboard.svg from a real run of five minutes: three nodes with --mock and 300 VNIs on an etcd of
# their own, watched by Prometheus. One node is killed and started again, one is drained, etcd is away for 20 s. The
# picture has the panels of contrib/prometheus/dashboard.json: its own queries, answered by Prometheus, drawn by
# dashboard.py, as Grafana is not in Debian.
#
# usage: contrib/pictures/dashboard.sh [FILE]    (WMGWD=FILE: this program instead of a release build)

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
picture=${1:-contrib/pictures/dashboard.svg}
client=24879 peer=24880 server=24881

wmgwd=${WMGWD-}
if [ -z "$wmgwd" ]; then
	cargo build --release --quiet
	wmgwd=${CARGO_TARGET_DIR:-target}/release/wmgwd
fi
dir=$(mktemp -d)
declare -A pids
clean_up() {
	kill -CONT "${pids[@]}" 2>/dev/null || :
	kill "${pids[@]}" 2>/dev/null || :
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
pids[etcd]=$!

start() { # NUMBER
	"$wmgwd" --name "gw$1" --mock --maxvni 300 --join-hold 5 --etcd "http://127.0.0.1:$client" \
		--metrics "127.0.0.1:2489$1" >>"$dir/gw$1.log" 2>&1 &
	pids[gw$1]=$!
}

cat >"$dir/prometheus.yml" <<CONFIG
global:
  scrape_interval: 2s
scrape_configs:
  - job_name: wmgwd
    static_configs:
$(for number in 1 2 3; do
	printf '      - targets: ["127.0.0.1:2489%d"]\n        labels: {instance: gw%d}\n' "$number" "$number"
done)
CONFIG
prometheus --config.file "$dir/prometheus.yml" --storage.tsdb.path "$dir/data" \
	--web.listen-address "127.0.0.1:$server" >"$dir/prometheus.log" 2>&1 &
pids[prometheus]=$!
begun=$(date +%s)
for number in 1 2 3; do
	start "$number"
done
sleep 60
kill -KILL "${pids[gw2]}"
sleep 30
start 2
sleep 60
kill -TERM "${pids[gw3]}"
sleep 30
start 3
sleep 50
kill -STOP "${pids[etcd]}"
sleep 20
kill -CONT "${pids[etcd]}"
sleep 50
python3 contrib/pictures/dashboard.py "http://127.0.0.1:$server" "$begun" "$(date +%s)" >"$dir/picture"
cp -- "$dir/picture" "$picture"
