/* Runs a fuzz target over files, without a fuzzer.
 *     program FILE...
 * A name that ends in .pack holds many inputs, each with its 32-bit length
 * before it (corpus.py makes them); any other file is one input. */
#include "fuzz.h"

typedef struct contents {
    uint8_t *p;
    size_t n;
} contents;

static contents read_file(const char *name) {
    contents all = {NULL, 0};
    FILE *f = fopen(name, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        perror(name);
        exit(2);
    }
    all.n = (size_t)ftell(f);
    rewind(f);
    all.p = malloc(all.n ? all.n : 1);
    if (!all.p || fread(all.p, 1, all.n, f) != all.n) {
        perror(name);
        exit(2);
    }
    fclose(f);
    return all;
}

static void run(const char *name, size_t number, rt_slice input) {
    uint8_t *copy = exact_copy(input);
    if (getenv("FUZZ_VERBOSE")) fprintf(stderr, "%s, input %zu, %zu bytes\n", name, number, input.n);
    LLVMFuzzerTestOneInput(copy, input.n);
    free(copy);
}

static size_t run_pack(const char *name, contents all) {
    rt_cursor c = rt_cursor_of(all.p, all.n);
    rt_slice input;
    uint32_t n;
    size_t count = 0;
    while (rt_cursor_u32(&c, &n)) {
        if (!rt_cursor_take(&c, n, &input)) {
            fprintf(stderr, "%s: cut\n", name);
            exit(2);
        }
        run(name, count++, input);
    }
    return count;
}

int main(int argc, char **argv) {
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        contents all = read_file(argv[i]);
        const char *dot = strrchr(argv[i], '.');
        if (dot && strcmp(dot, ".pack") == 0) {
            count += run_pack(argv[i], all);
        } else {
            run(argv[i], 0, rt_slice_of(all.p, all.n));
            count++;
        }
        free(all.p);
    }
    printf("%zu inputs\n", count);
    return 0;
}
