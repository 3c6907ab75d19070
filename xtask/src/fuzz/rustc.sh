#!/bin/sh
# Compiles a crate of the workspace for libFuzzer: with counters of coverage, optimised, and with the checks of a debug
# build. Dependencies are those of the dev profile, which need no instrumentation and are compiled already.
exec "$@" -Copt-level=2 -Cdebug-assertions=on -Coverflow-checks=on \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
