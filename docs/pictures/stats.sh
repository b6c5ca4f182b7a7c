#!/usr/bin/env bash
# Makes docs/pictures/stats.svg: what `embercask stats` shows of a store that has been written to, overwritten and let expire.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --quiet --release -p embercask-command --bin embercask --example terminal_picture
binaries=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
export EMBERCASK_STORE=data
embercask=$(realpath "$binaries/embercask")
picture=$(realpath "$binaries/examples/terminal_picture")
svg=$PWD/docs/pictures/stats.svg
cd "$work"

# lines NAMESPACE COUNT FROM EXTRA: keys to import.
lines() {
  awk -v namespace="$1" -v count="$2" -v from="$3" -v extra="$4" 'BEGIN {
    value = sprintf("%2000s", ""); gsub(" ", "v", value)
    for (n = from; n < from + count; n++)
      printf "{\"namespace\":\"%s\",\"key\":\"key-%07d\",\"value\":\"%s\"%s}\n", namespace, n, value, extra
  }'
}
soon=$(( ($(date +%s) + 6) * 1000 ))
"$embercask" -q namespace create PAGES
lines PAGES 200000 0 '' | "$embercask" -q import --os -
lines SESSIONS 60000 0 ",\"expiration_ms\":$soon" | "$embercask" -q import --os -
lines PAGES 40000 0 '' | "$embercask" -q import --os -
"$embercask" -q compact
lines PAGES 60000 20000 '' | "$embercask" -q import --os -
sleep 7
CLICOLOR_FORCE=1 "$embercask" stats | "$picture" >"$svg"
