#!/usr/bin/env bash
# Builds and tests the clients in JavaScript and Python, on the shared vectors and against a real `sluice dev`.
# Needs what `make deps` and `make build` leave behind. The client in Rust is tested with the workspace.
set -euo pipefail
cd "$(dirname "$0")"
js/build.sh
# one file after the other: each has a server of its own, and some a browser
node --test --test-reporter=spec --test-concurrency=1 --test-timeout=300000 js/test/*.test.mjs

# what a registry would get, packed without one, does what the docs say
if command -v npm >/dev/null; then
    packed=$(mktemp -d)
    trap 'rm -rf "$packed"' EXIT
    (cd js && npm pack --offline --silent --pack-destination "$packed" >/dev/null)
    mkdir -p "$packed/node_modules/sluice-client"
    tar -xzf "$packed"/sluice-client-*.tgz -C "$packed/node_modules/sluice-client" --strip-components=1
    (cd "$packed" && node --input-type=module --eval '
        import { connect } from "sluice-client";
        import { connectShared } from "sluice-client/shared";
        import { indexedDbStore } from "sluice-client/store";
        if ([connect, connectShared, indexedDbStore].some(one => typeof one !== "function")) process.exit(1);')
    echo "npm pack: $(tar -tzf "$packed"/sluice-client-*.tgz | wc -l) files, $(wc -c <"$packed"/sluice-client-*.tgz) bytes"
else
    echo 'test: SKIPPED: npm pack, as there is no npm' >&2
fi

cd python/tests
PYTHONPATH=.. python3 -m unittest --verbose test_vectors test_real
