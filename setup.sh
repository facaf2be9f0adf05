#!/usr/bin/env bash
# Makes .venv with the pinned versions and symskew itself. Run through `make`; says in one sentence what stands in the way.
set -euo pipefail
cd "$(dirname "$0")"

stop() { echo "symskew set-up: $1" >&2; exit 2; }

for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
  "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && python=$candidate && break
done
[ -n "${python:-}" ] || stop "no Python 3.11, 3.12 or 3.13 found (python3 is $(python3 --version 2>&1 || true)); install one, or name it: make PYTHON=/path/to/python."
"$python" -c 'import venv, ensurepip' 2>/dev/null || stop "$python has no venv module; install it (on Debian and Ubuntu: apt install python3-venv)."

need_gb=${SYMSKEW_SETUP_GB:-10}
free_gb=$(($(df -Pk . | awk 'NR==2 {print $4}') / 1048576))
[ -x .venv/bin/symskew ] || [ "$free_gb" -ge "$need_gb" ] || stop "$free_gb GB free here, about $need_gb GB needed (torch with its accelerator libraries takes most); free some space."

[ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || { rm -rf .venv; "$python" -m venv .venv || stop "could not make .venv in $PWD; is the folder writable?"; }
echo "symskew set-up: installing into .venv (a few minutes the first time) ..."
log=.venv/setup.log
if ! .venv/bin/pip install --disable-pip-version-check --quiet -r requirements-dev.txt -e . >"$log" 2>&1; then
  if grep -qiE 'No space left|Errno 28' "$log"; then stop "the disk is full; free about $need_gb GB and run make again."; fi
  if grep -qiE 'NewConnectionError|Could not fetch URL|Temporary failure|Max retries|ConnectionError|Connection refused|timed out|No matching distribution' "$log"; then
    stop "the packages could not be downloaded; check the network (or the pip index settings) and run make again. Details: $log"
  fi
  tail -n 5 "$log" >&2
  stop "pip failed; the lines above and $log say why."
fi
