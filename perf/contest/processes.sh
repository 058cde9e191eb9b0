# What `local` and `ledger` share: starting, waiting, measuring and stopping processes on this machine.
# To be sourced by bash after common.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables set here are for those who source it,
# and `verdict` is common.sh's
#
# It ends only processes it started, by their id, also on failure and Ctrl-C. From the environment:
# GALO, the binary (default builds target/release/galo).

readonly START_TIMEOUT_S=10
readonly STOP_TIMEOUT_S=10
readonly READY_TIMEOUT_S=75 # the contest asks every 5 s, 15 times at most

declare -A pids=() # by name, of everything still to be stopped
names=()           # in the order of starting
servers=()         # what ran before the load
declare -A cpu_before=()
load_seconds=0
load_status=0

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
    end_progress
    # The last started stops first: the load, the entry, the instances, then the processors.
    for ((index = ${#names[@]} - 1; index >= 0; index--)); do
        name="${names[index]}"
        if [[ -v "pids[$name]" ]]; then stop "$name"; fi
    done
    remove_directory
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

peak_rss_mib() {
    awk '/^VmHWM:/ { printf "%.1f", $2 / 1024 }' "/proc/${pids[$1]}/status"
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

# wait_until WHAT COMMAND...: until it succeeds. HAProxy must be running.
wait_until() {
    local what="$1" deadline=$((SECONDS + READY_TIMEOUT_S))
    shift
    until "$@"; do
        is_alive haproxy || died haproxy
        ((SECONDS < deadline)) || fail "$what not within $READY_TIMEOUT_S s"
        sleep 0.2
    done
}

# --- the steps of a run ---------------------------------------------------------------------------

# begin: finds the binary; from here on there is something to clean up.
begin() {
    if [[ -z "${GALO:-}" ]]; then
        local quiet=(--quiet)
        [[ ! -t 2 ]] || quiet=()
        cargo build --release "${quiet[@]}" --manifest-path "$HERE/../../Cargo.toml"
        GALO="$HERE/../../target/release/galo"
    fi
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Under /tmp and not TMPDIR: the path of a unix socket may have 107 bytes.
    directory="$(mktemp -d /tmp/galo-contest.XXXXXX)"
    peer_token="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
}

# run_load COMMAND...: runs k6 to its end, which leaves its exit status in `load_status`.
run_load() {
    local name load_started=$SECONDS
    servers=("${names[@]}")
    for name in "${servers[@]}"; do cpu_before[$name]="$(cpu_seconds "$name")"; done
    children_cpu_seconds >"$directory/cpu-before"
    # In the background and waited for, so that a signal to this script is answered at once.
    launch k6 "$@"
    show_progress load $((${duration_s:-0} / ${time_divisor:-1}))
    wait "${pids[k6]}" || load_status=$?
    end_progress
    unset 'pids[k6]'
    load_seconds=$((SECONDS - load_started))
    children_cpu_seconds >"$directory/cpu-after"
}

# print_processes: what each took during the load, and that it is still there.
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
        ((stopped_status == 0)) || wrong "$name ended with status $stopped_status after SIGTERM"
    done
    print_verdict
    exit "$verdict"
}
