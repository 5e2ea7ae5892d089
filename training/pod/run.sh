#!/usr/bin/env bash
# One attempt of a job on one machine: start, download, train, upload, end.
#
# Environment: PLANE_URL, JOB_ID, ATTEMPT, JOB_TOKEN, DEADLINE_SECONDS; PYTHON, and where the machine is a RunPod pod
# RUNPOD_POD_ID and RUNPOD_API_KEY, and where others use the disk KEEP_FREE_BYTES, which the dataset leaves free. Exit codes:
# 0 done, 65 data refused, 75 artifacts not uploaded, 76 cancelled, 77 deadline, 100 + curl's code for a download that failed,
# else the training's own.
set -Eeuo pipefail
export TZ=UTC

readonly API="${PLANE_URL:?}/api/training"
readonly JOB="$API/jobs/${JOB_ID:?}"
readonly PYTHON="${PYTHON:-python3}"
readonly STARTED="$SECONDS"
LOG="${POD_LOG:-$PWD/run.log}"
FAILED_LINE=0
FAILED_COMMAND=""
ENDS=0 # the first of the watchdogs' deadlines, on the clock SECONDS
PATIENCE=120 # seconds in which a call is tried again
readonly END_SECONDS=20

# A time stamp on every line, also on the last ones after SIGTERM, which every process of the machine gets. The lines go to
# LOG as well, unless the launcher has already sent the output there (POD_LOG).
exec > >(
  trap '' TERM INT
  while IFS= read -r line; do
    printf -v line '%(%FT%TZ)T %s' -1 "$line"
    printf '%s\n' "$line"
    [[ -n ${POD_LOG:-} ]] || printf '%s\n' "$line" >> "$LOG"
  done
) 2>&1
readonly STAMPER=$!
trap '' PIPE
umask 077
# The token reaches curl by a file, never by an argument that `ps` shows.
printf 'header = "Authorization: Bearer %s"\n' "${JOB_TOKEN:?}" > .auth

say() { printf '%s\n' "$*"; }

call() { # METHOD URL [curl's arguments]: the answer on stdout, retried
  local method="$1" url="$2"
  shift 2
  curl -sS --fail-with-body --retry 8 --retry-all-errors --retry-max-time "$PATIENCE" --connect-timeout 10 -m "$((PATIENCE / 2))" \
    -K .auth -X "$method" "$@" "$url"
}

quoted() { # TEXT as a JSON string
  local text="${1//\\/\\\\}"
  text="${text//\"/\\\"}"
  text="${text//[$'\001'-$'\037']/ }"
  printf '"%s"' "${text:0:400}"
}

finish() { # whatever happened: report the end, and end the machine, once
  local code=$? jobs left waits end
  trap - EXIT ERR
  trap '' TERM INT
  jobs=$(jobs -p) # the watchdogs and the training; bash may list an ended job as running
  kill -TERM $jobs 2>/dev/null || true
  if [[ $code != 0 && -e .deadline ]]; then
    code=77
  else # a training that is told to stop may upload a last checkpoint
    for _ in {1..8}; do
      kill -0 $jobs 2>/dev/null || break
      sleep 1
    done
  fi
  rm -f data # first: on a disk without room the plane could not take the reports
  end="ended with exit code $code after $((SECONDS - STARTED)) s"
  say "$end"
  # The log is sent once the stamper has written all that was said: of many lines, a busy machine writes for some seconds.
  left=$(((ENDS - SECONDS) / 4))
  for ((waits = 10 * (left < 2 ? 2 : left < 8 ? left : 8); waits > 0; waits--)); do
    if grep -qF "$end" "$LOG" 2>/dev/null; then break; fi
    sleep 0.1
  done
  # The two reports end before the deadline, and take 6 seconds each where the deadline is near or past.
  left=$(((ENDS - SECONDS) / 2))
  PATIENCE=$((left < 6 ? 6 : left < PATIENCE ? left : PATIENCE))
  tail -c 1000000 "$LOG" 2>/dev/null | call POST "$JOB/log" --data-binary @- -H 'Content-Type: text/plain' > /dev/null || true
  call POST "$JOB/end" -H 'Content-Type: application/json' \
    -d "{\"exit_code\": $code, \"line\": $FAILED_LINE, \"command\": $(quoted "$FAILED_COMMAND")}" > /dev/null ||
    say "the end could not be reported; the plane will see that the machine is gone"
  if [[ -n ${RUNPOD_POD_ID:-} ]]; then
    curl -sS --retry 8 --retry-all-errors -m 20 -X DELETE -H "Authorization: Bearer ${RUNPOD_API_KEY:-}" \
      "${RUNPOD_API:-https://api.runpod.io}/v2/pods/$RUNPOD_POD_ID" || say "the pod could not be ended; the plane will end it"
  fi
  rm -f .auth
  kill -KILL $jobs 2>/dev/null || true
  exec 1>&- 2>&-
  # The stamper ends after the last process that writes to the stamper; a process of the training may hold the pipe.
  for _ in {1..20}; do
    kill -0 "$STAMPER" 2>/dev/null || break
    sleep 0.1
  done
  exit "$code"
}

failed() { # LINE COMMAND
  FAILED_LINE="$1"
  FAILED_COMMAND="$2"
  say "ERROR in line $1: $2"
}

trap 'failed "$LINENO" "$BASH_COMMAND"' ERR
trap finish EXIT
trap 'say "told to stop"; exit 143' TERM INT

watch() { # SECONDS until the deadline, which holds also when the plane is away
  if ((ENDS == 0 || SECONDS + $1 < ENDS)); then ENDS=$((SECONDS + $1)); fi
  (
    trap - ERR EXIT
    # A wait without a process of its own, which could outlive the watchdog: nothing is ever written to this pipe.
    read -r -t "$1" <> <(:) || true
    touch .deadline
    say "the deadline is reached"
    kill -TERM "$$"
  ) &
}
watch "${DEADLINE_SECONDS:?}"

why() { # CURL_CODE HTTP_STATUS: the cause in words
  case "$1" in
    6) say "download: DNS does not know the host" ;;
    7) say "download: connection refused" ;;
    18) say "download: the transfer broke off" ;;
    28) say "download: timed out" ;;
    35 | 51 | 58 | 60 | 77) say "download: TLS failed" ;;
    22) case "$2" in
      401 | 403) say "download: not permitted ($2): the token is wrong, used or expired" ;;
      404) say "download: nothing there (404)" ;;
      413) say "download: larger than the limit (413)" ;;
      *) say "download: HTTP $2" ;;
    esac ;;
    *) say "download: curl failed with $1" ;;
  esac
}

# Each try has a token of its own and goes on where the file ends. curl's own --retry would send a used token again, and
# would cut the file to nothing when the answer is an error.
fetch_data() { # FILE
  local try code status url sha256 size room
  for try in 1 2 3 4 5; do
    read -r url sha256 size < <(call POST "$API/tokens" -H 'Content-Length: 0') || url=""
    code=0
    status=0
    room=$(($(df -Pk . | awk 'NR==2 {print $4}') * 1024 - ${KEEP_FREE_BYTES:-0}))
    room=$((room + $(stat -c %s "$1" 2>/dev/null || echo 0)))
    if [[ -n $url ]] && [ "$room" -lt "$size" ]; then
      code=23 # curl's, when it cannot write
      say "download: the disk has room for $((room > 0 ? room : 0)) bytes, the dataset has $size"
    elif [[ -n $url ]]; then
      printf 'url = "%s"\n' "$url" > .url
      # bash sees a watchdog's signal after curl's end.
      status=$(curl -sS -fL --connect-timeout 10 --speed-limit 1000 --speed-time 60 -m "$((ENDS > SECONDS ? ENDS - SECONDS + 1 : 1))" \
        -C - -o "$1" -w '%{http_code}' -K .url) || code=$?
      rm -f .url
      if [[ $code == 0 || $(stat -c %s "$1" 2>/dev/null || echo 0) == "$size" ]]; then
        if [[ $(sha256sum "$1" | cut -d ' ' -f 1) == "$sha256" ]]; then
          say "dataset of $size bytes is here"
          return 0
        fi
        say "download: the bytes are others than announced"
        rm -f "$1"
        code=18
      else
        why "$code" "$status"
      fi
    else
      code=7
      why 7 0
    fi
    sleep "$try"
  done
  return $((100 + code))
}

say "=== system ==="
say "$(uname -srm), $(nproc) cores, $(df -Pk . | awk 'NR==2 {print int($4 / 1024)}') MB free"
say "GPU: $(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo none)"
say "Python: $("$PYTHON" --version 2>&1), curl: $(curl --version | head -1 | cut -d ' ' -f 2)"
say "job $JOB_ID, attempt ${ATTEMPT:?}, at most $DEADLINE_SECONDS s"

call POST "$JOB/start" -H 'Content-Length: 0' > start.json
# The reservation pays from the request for the machine on, and for the end.
paid=$(sed -n 's/.*"paid_seconds": *\([0-9][0-9]*\).*/\1/p' start.json)
if [[ -n $paid ]]; then watch "$((paid > END_SECONDS ? paid - END_SECONDS : 0))"; fi
fetch_data data

say "=== training ==="
"$PYTHON" -P -m training.pod start.json data &
wait "$!"
