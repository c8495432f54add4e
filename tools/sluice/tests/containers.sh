#!/usr/bin/env bash
# Builds the images and runs the tests of tests/containers on a Docker Engine. Where there is none, or no images to
# begin from, it says so loudly and is skipped; an image that does not build is a failure.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# Built sooner than for release, and fast enough that what is seen is the system and not its build.
export SLUICE_PROFILE=${SLUICE_PROFILE:-drill}
files=(deploy/Dockerfile deploy/compose.yaml deploy/compose.cluster.yaml)
# The stack with every link encrypted needs an image more, and is asked for: SLUICE_SECURE=1.
if [ -n "${SLUICE_SECURE:-}" ]; then files+=(deploy/secure/etcd.Dockerfile); else set -- --skip secure:: "$@"; fi

skip() {
    printf '\n#### THE CONTAINER TESTS WERE SKIPPED: %s\n\n' "$1" >&2
    exit 0
}

docker info >/dev/null 2>&1 || skip 'no Docker Engine answers here'
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif docker-compose version >/dev/null 2>&1; then
    compose=(docker-compose)
else
    skip 'neither docker compose nor docker-compose is installed'
fi

# Where no registry can be reached, a program may make an image that stands in for a public one.
stand_ins=${SLUICE_STAND_INS:-../shared/images/stand-ins}
stages=" $(sed -nE 's/^FROM .* AS ([a-z]+)$/\1/p' deploy/Dockerfile | tr '\n' ' ')"
for image in $(sed -nE 's/^FROM ([^ ]+).*/\1/p; s/^ +image: ([^ ]+)$/\1/p' "${files[@]}" | sort -u); do
    case $image in sluice-*) continue ;; esac
    case $stages in *" $image "*) continue ;; esac
    docker image inspect "$image" >/dev/null 2>&1 || { [ -x "$stand_ins" ] && "$stand_ins" "$image"; } ||
        docker pull --quiet "$image" >/dev/null 2>&1 || skip "the image $image is not here and cannot be pulled"
done

"${compose[@]}" --file deploy/compose.yaml build
"${compose[@]}" --file deploy/compose.serve.yaml build
if [ -n "${SLUICE_SECURE:-}" ]; then
    docker build --quiet --tag sluice-etcd --file deploy/secure/etcd.Dockerfile deploy/secure >/dev/null
else
    echo '#### SKIPPED: deploy/compose.secure.yaml; SLUICE_SECURE=1 make test-containers tries it' >&2
fi
# No runner with deadlines: each of these takes minutes, and must take down what it brought up. The whole workspace, so
# that the libraries which other tests have built are used again.
exec cargo test --locked --workspace --test containers -- --ignored --test-threads 1 --nocapture "$@"
