#!/bin/sh
# Leaves the manifests of the workspace in the current directory, and crates without
# content: what is built of it are the dependencies alone. Its files change only when
# a manifest does, so the layer that is built of them is kept over changes of the code.
set -eu

# What dependencies are built against stays whole.
kept=./libs/openssl-sys

find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -path "$kept/*" -delete
find . -type d -empty -delete
for manifest in ./libs/*/Cargo.toml ./services/*/Cargo.toml; do
    crate=${manifest%/Cargo.toml}
    [ "$crate" != "$kept" ] || continue
    mkdir -p "$crate/src"
    if grep -q '^\[\[bin\]\]' "$manifest"; then
        echo 'fn main() {}' >"$crate/src/main.rs"
    else
        : >"$crate/src/lib.rs"
    fi
    # Cargo wants to see the benchmarks and tests that a manifest names without a path.
    awk -F '"' '
        function target() { if (folder && name) print folder "/" name ".rs"; folder = name = "" }
        /^\[/ { target() }
        /^\[\[bench]]/ { folder = "benches" }
        /^\[\[test]]/ { folder = "tests" }
        /^name/ { name = $2 }
        /^path/ { folder = "" }
        END { target() }' "$manifest" | while read -r file; do
        mkdir -p "$crate/${file%/*}"
        echo 'fn main() {}' >"$crate/$file"
    done
    # Dependencies of a build script are built only where there is one.
    if grep -q '^\[build-dependencies\]' "$manifest"; then echo 'fn main() {}' >"$crate/build.rs"; fi
done
