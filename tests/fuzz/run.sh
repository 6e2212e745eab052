#!/bin/sh
# Fuzzes each target for some seconds, from the committed inputs onward, and shortens what it
# found into inputs to commit. Needs clang with libFuzzer (Debian: clang, libclang-rt-dev).
# A target in C is a program of its own; one in Python runs under atheris, whose libFuzzer also sees
# the C core, compiled for it.
# Usage: tests/fuzz/run.sh PYTHON SECONDS [TARGET...]
set -e
python=$1
seconds=$2
shift 2
here=tests/fuzz
out=build/fuzz
clang=${CLANG:-clang}
sanitizers=address,undefined
mkdir -p "$out"

if ! echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
    "$clang" -fsanitize=fuzzer,$sanitizers -x c - -o "$out/probe" 2>/dev/null; then
    echo "make fuzz needs $clang with libFuzzer: apt-get install clang libclang-rt-dev" >&2
    exit 1
fi

folders() { # of csrc, that a target needs
    echo base term dist $(sed -n '1,3s|^/\* needs: route$|sync proc route|p' "$here/$1.c")
}

compile() {
    sources=$(for folder in $(folders "$1"); do echo csrc/$folder/*.c; done)
    "$clang" -std=gnu11 -g -O1 -DRT_DEBUG -DRT_TEST_ALLOC -Icsrc \
        -fsanitize=fuzzer,$sanitizers -fno-sanitize-recover=all \
        $sources "$here/$1.c" -lz -lpthread -lm -o "$out/$1"
}

prepare() { # $out/$1 becomes the program
    if [ -f "$here/$1.c" ]; then
        compile "$1"
        return
    fi
    "$python" -m pip --disable-pip-version-check install -q --no-build-isolation -e '.[fuzz]'
    CC=$clang CFLAGS=-DRT_DEBUG ROUTER_SANITIZE=$sanitizers,fuzzer-no-link \
        "$python" setup.py -q build --build-base "$out/objects" --build-lib "$out/core"
    preload=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/asan_with_fuzzer.so
    cat >"$out/$1" <<WORDS
#!/bin/sh
export PYTHONPATH=$PWD/$out/core:$PWD/tests PYTHONSAFEPATH=1 PYTHONMALLOC=malloc
export UBSAN_OPTIONS=print_stacktrace=1 FUZZ_PROGRAM=$PWD/$out/$1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:malloc_context_size=6
exec env LD_PRELOAD=$preload $python $here/$1.py "\$@"
WORDS
    chmod +x "$out/$1"
}

for target in ${@:-$(cd $here && ls fuzz_*.c fuzz_*.py | sed 's/\.[a-z]*$//')}; do
    echo "== $target, $seconds s"
    prepare "$target"
    rm -rf "$out/$target.inputs" "$out/$target.short"
    mkdir -p "$out/$target.short" "$out/crashes"
    "$python" $here/corpus.py unpack "$target" "$out/$target.inputs"
    if ! "$out/$target" "$out/$target.inputs" -max_total_time="$seconds" -max_len=4096 \
        -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$out/crashes/$target-" >"$out/$target.log" 2>&1; then
        grep -B2 -A30 'ERROR\|runtime error\|does not hold\|assertion' "$out/$target.log" >&2 || true
        cat >&2 <<WORDS

$target failed; all of it is in $out/$target.log, and its input in $out/crashes.
To see it again:              $out/$target $out/crashes/$target-...
To make it a test for ever:   $python $here/corpus.py add $target $out/crashes/$target-...
WORDS
        exit 1
    fi
    tail -n 200 "$out/$target.log" | grep -E 'DONE|number_of_executed|average_exec'
    "$out/$target" -merge=1 -use_counters=0 "$out/$target.short" "$out/$target.inputs" >>"$out/$target.log" 2>&1
    echo "to commit what was found: $python $here/corpus.py pack $target $out/$target.short"
done
