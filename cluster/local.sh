#!/usr/bin/env bash
# A Ray cluster of three nodes on this machine, to try jobs on: a head that does no work, and two nodes of one CPU each.
#
#   cluster/local.sh start     starts the cluster, and prints the command that submits a job
#   cluster/local.sh status    says whether it runs, and prints that command again
#   cluster/local.sh stop      ends its three nodes, and no other Ray
#
# The cluster has its own folder, ports and token, which only you can read, and listens on loopback only.
# SADCL_LOCAL (default /tmp/sadcl-UID) is the folder. Keep its name short: socket paths below it may have 107 characters.
# SADCL_LOCAL_PORT (default 6390) is the first of six ports. Results of jobs are not kept in the folder.
set -euo pipefail

folder=${SADCL_LOCAL:-/tmp/sadcl-$(id -u)}
port=${SADCL_LOCAL_PORT:-6390}
dashboard=$((port + 1))
head=127.0.0.2 # Ray replaces 127.0.0.1 by an address that other hosts can reach, and would listen there

die() {
  echo "error: $*" >&2
  exit 2
}

# The start time of a process. It identifies the process together with its PID, because PIDs are reused.
start_time() { ps -o lstart= -p "$1" || true; }

# PIDs of the nodes that this script started and that still run, the newest first.
running_pids() {
  [ -f "$folder/pids" ] || return 0
  tac "$folder/pids" | while read -r pid when; do
    if [ -n "$when" ] && [ "$when" = "$(start_time "$pid" | xargs)" ]; then echo "$pid"; fi
  done
}

print_usage() {
  cat <<END
Submit a job from the root of the repository (the results are in the folder that --storage names):

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
ray job submit --address http://127.0.0.1:$dashboard --working-dir . -- python experiments/tune_coco.py --storage "\$PWD/runs"

The dashboard is at http://127.0.0.1:$dashboard (it asks for the token: cat $folder/token)
END
}

# node ADDRESS NUMBER OPTIONS: starts a node that runs until it gets a signal. Like separate hosts, nodes share no
# folder for temporary files or caches: they would unpack a job's package over each other.
node() {
  local address=$1 number=$2
  shift 2
  mkdir -p "$folder/$number/tmp"
  TMPDIR=$folder/$number/tmp XDG_CACHE_HOME=$folder/$number/cache \
    setsid ray start --block --disable-usage-stats --node-ip-address="$address" --object-store-memory=100000000 \
    --temp-dir="$folder/$number/ray" \
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=$((port + 2 + number)) "$@" \
    >"$folder/node$number.log" 2>&1 </dev/null &
  echo "$! $(start_time $! | xargs)" >>"$folder/pids"
}

start() {
  [ -z "$(running_pids)" ] || die "the cluster runs already: see cluster/local.sh status"
  command -v ray >/dev/null || die "the command ray was not found: pip install -e ."
  (umask 077 && mkdir -p "$folder")
  [ -O "$folder" ] || die "$folder belongs to another user: set SADCL_LOCAL=/another/short/folder"
  umask 077
  rm -rf "$folder"/[0-2] "$folder/pids"
  [ -s "$folder/token" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/token"

  unset RAY_ADDRESS RAY_AUTH_TOKEN
  export HF_HOME=${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface} # weights are downloaded once
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token"
  export RAY_JOB_STOP_WAIT_TIME_S=60 # the default kills a job after three seconds, in the middle of a write
  trap failed ERR INT TERM
  node "$head" 0 --head --port="$port" --num-cpus=0 --num-gpus=0 --ray-client-server-port=$((port + 5)) \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard"
  wait_for 1
  for number in 1 2; do # one at a time: Ray gives up on a node that takes half a minute
    node "127.0.0.$((2 + number))" "$number" --address="$head:$port" --num-cpus=1 --num-gpus=0
    wait_for $((1 + number))
  done
  trap - ERR INT TERM
  echo "A cluster of 3 nodes runs."
  print_usage
}

failed() {
  tail -n 15 "$folder"/node?.log >&2
  trap - ERR
  stop >/dev/null
  die "the cluster did not start; the last lines of its nodes' logs are above."
}

# wait_for COUNT: waits until COUNT nodes are alive and the head accepts jobs.
wait_for() {
  python - "$1" "http://127.0.0.1:$dashboard" "http://$head:$((port + 2))" "$folder" <<'END' || failed
import json, os, sys, time, urllib.request
from pathlib import Path

count, dashboard, agent, folder = int(sys.argv[1]), *sys.argv[2:]
token = {"Authorization": "Bearer " + Path(folder, "token").read_text()}
pids = [line.split()[0] for line in Path(folder, "pids").read_text().splitlines()]


def get(url):
    return urllib.request.urlopen(urllib.request.Request(url, headers=token), timeout=10).read()


deadline = time.monotonic() + 180
while True:
    try:
        nodes = json.loads(get(f"{dashboard}/nodes?view=summary"))["data"]["summary"]
        get(f"{agent}/api/local_raylet_healthz")
        if sum(node["raylet"].get("state") == "ALIVE" for node in nodes) >= count:
            break
    except (OSError, ValueError, KeyError):
        pass
    if time.monotonic() > deadline or not all(os.path.exists(f"/proc/{pid}") for pid in pids):
        sys.exit(1)
    time.sleep(0.5)
END
}

stop() {
  local pid pids
  pids=$(running_pids)
  for pid in $pids; do kill -TERM "$pid" 2>/dev/null || true; done
  for _ in $(seq 300); do
    [ -n "$(running_pids)" ] || break
    sleep 0.1
  done
  for pid in $(running_pids); do kill -KILL -- "-$pid" 2>/dev/null || true; done
  rm -rf "$folder"/[0-2] "$folder/pids"
  echo "The cluster is stopped; results of jobs stay."
}

case "${1:-}" in
start) start ;;
stop) stop ;;
status)
  count=$(running_pids | wc -l)
  [ "$count" -gt 0 ] || { echo "The cluster does not run." && exit 1; }
  echo "$count of 3 nodes run."
  print_usage
  ;;
*) die "usage: cluster/local.sh start|stop|status" ;;
esac
