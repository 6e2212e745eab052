/* Purpose: walk one external term without building anything: validate it,
 * find its end, rewrite atom-cache references away.
 * Ownership: nothing is kept. Threads: reentrant. No recursion: nesting is
 * counted on an explicit stack of at most `depth_max` entries.
 * Limits: depth_max; claimed lengths never exceed what is left of the input;
 * arities are checked against the bytes left (each element takes at least one).
 * A cache reference of 2 bytes may stand for 1020: compare expanded_bytes with
 * the limit for messages before expanding.
 * Errors: RT_AGAIN (input ends inside the term), RT_EBAD, RT_ELIMIT, RT_ENOMEM;
 * RT_ESIZE for a compressed term whose claimed size is not its real one. */
#ifndef RT_TERM_SCAN_H
#define RT_TERM_SCAN_H

#include "base/base.h"
#include "base/buf.h"

/* The atoms a distribution header names, as UTF-8, by reference index. */
typedef struct rt_atoms {
    uint32_t count;
    rt_slice at[255];
} rt_atoms;

#define RT_SCAN_REFS_MAX 16u

typedef struct rt_scan {
    uint32_t depth_max;      /* in */
    const rt_atoms *atoms;   /* in: NULL refuses ATOM_CACHE_REF */
    size_t error_offset;     /* out on failure */
    uint32_t cache_refs;     /* out: how many ATOM_CACHE_REF were seen, */
    uint32_t ref_at[RT_SCAN_REFS_MAX]; /* and where the first of them stand */
    bool fun;                /* out: a fun is in it, which tells its own size */
    bool compressed;         /* out: the term is 80 (only at the top) */
    uint64_t expanded_bytes; /* out: its length once rt_term_expand has rewritten it */
} rt_scan;

/* Validates one term (no version byte) at the start of p and returns its
 * length in bytes. Strict where Erlang is: NaN and infinity, broken UTF-8 in
 * atoms, bad bitstring tails, references over 5 words are RT_EBAD. Duplicate
 * map keys are left to the decoder. A compressed term is measured, and its
 * content is validated by the decoder after inflating. LOCAL is refused, for
 * only the node that made it can read it, and so are native records. */
int64_t rt_term_scan(const uint8_t *p, size_t n, rt_scan *scan);

/* Appends to `out` the valid term of n bytes at p with every ATOM_CACHE_REF
 * replaced by a SMALL_ATOM_UTF8 or ATOM_UTF8. p must have passed the scan with
 * the same atoms. Errors: RT_ENOMEM; RT_EBAD if p has not passed the scan;
 * RT_ELIMIT if a fun would be longer than its size field can say. */
int rt_term_expand(rt_buf *out, const uint8_t *p, size_t n, const rt_atoms *atoms);
/* The same for the term that this scan has just seen at p, faster where it can be. */
int rt_term_expand_scanned(rt_buf *out, const uint8_t *p, size_t n, const rt_scan *scan);

/* Length of the valid term at p (which has passed the scan); no checks beyond
 * bounds. Returns RT_EBAD if it runs over. */
int64_t rt_term_skip(const uint8_t *p, size_t n);

#endif
