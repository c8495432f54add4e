#!/usr/bin/env bash
# Builds a release of the commit that is checked out, for the machine that it runs on: an archive, what it was built from
# (CycloneDX), images where a Docker Engine is there, and the SHA-256 sums of all files. Nothing is sent anywhere.
# Usage: deploy/release.sh [--no-images]
#   RELEASE_PROFILE=dev builds sooner, to try this out
# The version is that of the tag v…, which must be that of Cargo.toml; without a tag `git describe` names it.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${RELEASE_PROFILE:-release}
images=yes
[ "${1:-}" != --no-images ] || images=no
say() { printf 'release: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# One version everywhere: programs, images, chart and manifests.
cargo_version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
says() { grep -qF "$2" "$1" || fail "$1 does not say $2, the version of Cargo.toml"; }
says deploy/helm/sluice/Chart.yaml "version: $cargo_version"
says deploy/helm/sluice/Chart.yaml "appVersion: \"$cargo_version\""
says deploy/Dockerfile "ARG VERSION=$cargo_version"
for service in gateway logic task; do
    says deploy/kubernetes/base/kustomization.yaml "name: sluice-$service, newTag: \"$cargo_version\""
done
if tag=$(git describe --exact-match --tags --match 'v*' 2>/dev/null); then
    [ "$tag" = "v$cargo_version" ] || fail "the tag is $tag, but Cargo.toml says $cargo_version"
    [ -z "$(git status --porcelain)" ] || fail "there are changes that are not in $tag: git status shows them"
    grep -qF "## [$cargo_version]" CHANGELOG.md || fail "CHANGELOG.md has no section $cargo_version"
    version=$cargo_version
else
    version=$cargo_version-$(git describe --tags --match 'v*' --always --dirty)
    say "no tag here: $version is for trying out"
fi
commit=$(git rev-parse --short=12 HEAD)
moment=$(git log -1 --format=%ct)

say "building $version ($profile)"
export SLUICE_COMMIT=$commit CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=true
cargo build --locked --bins --profile "$profile" -p sluice -p sluice-gateway -p sluice-logic -p sluice-task
target=${CARGO_TARGET_DIR:-$PWD/target}
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")

out=$target/release-files
rm -rf "$out"
mkdir -p "$out"
name=sluice-$version-$(uname -m)-linux-gnu
folder=$out/$name
mkdir -p "$folder/bin" "$folder/deploy"
programs=(sluice sluice-gateway sluice-logic sluice-task)
for program in "${programs[@]}"; do
    install -m 755 "$built/$program" "$folder/bin/$program"
    "$folder/bin/$program" --version >/dev/null || fail "$program does not run"
done
# Files of the commit, not what lies around.
git archive HEAD LICENSE README.md CHANGELOG.md SECURITY.md docs proto/WIRE.md proto/schema deploy examples \
    client/js/README.md client/js/sluice.js | tar -x -C "$folder"

# What the programs are made of: https://github.com/CycloneDX/cyclonedx-rust-cargo, which writes beside each Cargo.toml.
if ! cargo cyclonedx --version >/dev/null 2>&1; then
    say "installing cargo-cyclonedx"
    cargo install --locked --quiet cargo-cyclonedx@0.5.9
fi
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
git archive HEAD | tar -x -C "$sources"
(cd "$sources" && SOURCE_DATE_EPOCH=$moment cargo cyclonedx --quiet --format json --spec-version 1.5)
for program in "${programs[@]}"; do
    found=$(find "$sources" -name "$program.cdx.json" -not -path '*/target/*' | head -1)
    [ -n "$found" ] || fail "there is no list of what $program is made of"
    cp "$found" "$folder/$program.cdx.json"
done

# The same bytes from the same files, whoever packs them.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$moment" -C "$out" -c "$name" | gzip -n9 > "$out/$name.tar.gz"
for program in "${programs[@]}"; do cp "$folder/$program.cdx.json" "$out/$program-$version.cdx.json"; done
rm -rf "$folder"

if [ "$images" = yes ] && docker info >/dev/null 2>&1; then
    for image in gateway logic task serve sluice; do
        tagged=sluice-$image:$version
        [ "$image" != sluice ] || tagged=sluice:$version
        say "image $tagged"
        docker build --quiet --file deploy/Dockerfile --target "$image" --tag "$tagged" \
            --build-arg PROFILE="$profile" --build-arg VERSION="$version" --build-arg REVISION="$commit" . >/dev/null
        docker save "$tagged" | gzip -n9 > "$out/${tagged/:/-}-image.tar.gz"
    done
else
    say "no images: no Docker Engine answers, or --no-images"
fi

(cd "$out" && sha256sum -- * > SHA256SUMS)
(cd "$out" && sha256sum --quiet --check SHA256SUMS)
say "in $out:"
ls -l "$out" >&2
