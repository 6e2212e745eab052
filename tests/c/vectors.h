/* Purpose: read the vector files of tests/vectors: a name, a tab, hex. */
#ifndef RT_TESTS_VECTORS_H
#define RT_TESTS_VECTORS_H

#include <stdint.h>

#include "check.h"

typedef struct vector {
    char *name;
    uint8_t *p; /* a block of exactly n bytes */
    size_t n;
} vector;

typedef struct vectors {
    vector *at;
    size_t n;
} vectors;

static inline int vector_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline vector vector_of(char *line) {
    vector v = {NULL, NULL, 0};
    char *hex = strchr(line, '\t');
    if (!hex) abort();
    *hex++ = 0;
    v.name = strdup(line);
    v.n = strspn(hex, "0123456789abcdef") / 2;
    v.p = malloc(v.n);
    if (!v.name || !v.p || v.n == 0) abort();
    for (size_t i = 0; i < v.n; i++)
        v.p[i] = (uint8_t)(vector_digit(hex[2 * i]) << 4 | vector_digit(hex[2 * i + 1]));
    return v;
}

static inline __attribute__((unused)) vectors vectors_read(const char *file) {
    vectors all = {NULL, 0};
    char *line = NULL;
    size_t room = 0;
    FILE *f = fopen(file, "r");
    if (!f) {
        perror(file);
        exit(1);
    }
    while (getline(&line, &room, f) > 0) {
        if ((all.n & (all.n - 1)) == 0) { /* full at each power of two */
            all.at = realloc(all.at, (all.n ? 2 * all.n : 1) * sizeof *all.at);
            if (!all.at) abort();
        }
        all.at[all.n++] = vector_of(line);
    }
    free(line);
    fclose(f);
    return all;
}

static inline __attribute__((unused)) void vectors_free(vectors *all) {
    for (size_t i = 0; i < all->n; i++) {
        free(all->at[i].name);
        free(all->at[i].p);
    }
    free(all->at);
}

#endif
