#!/usr/bin/env bash
# Makes dist/: modules by esbuild, types by tsc, both from Debian (or any newer ones on PATH). Says how large it is.
set -euo pipefail
cd "$(dirname "$0")"
for tool in esbuild tsc; do
    command -v "$tool" >/dev/null || { echo "build: $tool is missing: apt-get install esbuild node-typescript" >&2; exit 1; }
done
rm -rf dist
tsc --project .
esbuild src/index.ts src/node.ts src/store.ts src/shared.ts --bundle --minify --format=esm --target=es2022 \
    '--external:node:*' --legal-comments=none --outdir=dist --log-level=warning
packed=$(gzip -9 <dist/index.js | wc -c)
printf 'dist/index.js: %s bytes, %s with gzip -9\n' "$(wc -c <dist/index.js)" "$packed"
[ "$packed" -le 8192 ] || { echo 'build: that is above the 8 KiB that are promised' >&2; exit 1; }
