#!/bin/bash
# A made-up support desk beside a running installation: its traces go into Kafka, and once
# a version serves, its questions to the router.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "making five days of messages"
# In a process of its own and without Kafka; what is wanted of it are its messages. The
# echo of its own router would mean nothing to the one that runs here.
TRACER__SOURCE__KIND=spool tracer demo --data "$work/desk" --messages "$DEMO_MESSAGES" --exit >/dev/null
sed 's/,"routing":{[^}]*}//' "$work"/desk/spool/traces/*.jsonl >"$work/traces.jsonl"

tracer replay "$work/traces.jsonl" --rate "$DEMO_RATE"

echo "waiting for a version"
for ((tries = 0; ; tries++)); do
    if tracer route --task support "where is my parcel?" --json | grep -q '"pipeline_version": *[1-9]'; then break; fi
    if ((tries == 300)); then
        echo "no version was published: the trainer's log says why" >&2
        exit 1
    fi
    sleep 2
done

echo "asking"
# Inputs without a quotation mark: this is no reader of JSON.
head -n "$DEMO_QUESTIONS" "$work/traces.jsonl" | sed -n 's/.*"input":"\([^"\\]*\)".*/\1/p' | while read -r text; do
    tracer route --task support "$text" >/dev/null
done
