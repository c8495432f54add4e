#!/usr/bin/env bash
# Makes dist/: modules by esbuild, types by tsc, both from Debian (or any newer ones on PATH). Says how large it is.
# Also sluice.js, dist/index.js with a first line that says what it was made from. It is committed: whoever builds
# `sluice dev`, or copies it into a page, needs neither tool.
# Usage: build.sh [--check]   with --check makes nothing, and fails when sluice.js is not what src/ says
set -euo pipefail
cd "$(dirname "$0")"
flags=(--bundle --minify --format=esm --target=es2022 '--external:node:*' --legal-comments=none --log-level=warning)
# Also by the hash: the same source gives other bytes with another esbuild.
sources=$(LC_ALL=C; cat src/*.ts | sha256sum | cut -c1-16)
esbuild=$(esbuild --version 2>/dev/null || true)
first="// sluice-client $(sed -n 's/.*"version": "\(.*\)".*/\1/p' package.json), Apache-2.0; made by client/js/build.sh"
# A file of these sources by another esbuild is as good, and stays: it would go back and forth.
is_current() {
    local is
    is=$(head -n 1 sluice.js 2>/dev/null) || return 1
    [[ $is == "$first from sources $sources"* ]] || return 1
    [[ $is != *" with esbuild $esbuild" ]] || { tail -n +2 sluice.js | cmp --silent - "$1"; }
}

if [ "${1:-}" = --check ]; then
    built=$(mktemp)
    trap 'rm -f "$built"' EXIT
    if [ -n "$esbuild" ]; then esbuild src/index.ts "${flags[@]}" >"$built"; fi
    is_current "$built" && exit
    echo 'client/js/sluice.js is not what client/js/src says: run client/js/build.sh and commit it' >&2
    exit 1
fi

for tool in esbuild tsc; do
    command -v "$tool" >/dev/null || { echo "build: $tool is missing: apt-get install esbuild node-typescript" >&2; exit 1; }
done
rm -rf dist
tsc --project .
esbuild src/index.ts src/node.ts src/store.ts src/shared.ts "${flags[@]}" --outdir=dist
is_current dist/index.js || { echo "$first from sources $sources with esbuild $esbuild"; cat dist/index.js; } >sluice.js
packed=$(gzip -9 <dist/index.js | wc -c)
printf 'dist/index.js: %s bytes, %s with gzip -9\n' "$(wc -c <dist/index.js)" "$packed"
[ "$packed" -le 8192 ] || { echo 'build: that is above the 8 KiB that are promised' >&2; exit 1; }
