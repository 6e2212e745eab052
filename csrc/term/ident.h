/* Purpose: pids, ports and references as numbers and as canonical bytes.
 * The canonical form of an identifier is NEW_PID, V4_PORT or NEWER_REFERENCE
 * with the node as SMALL_ATOM_UTF8 (or ATOM_UTF8 when longer than 255 bytes);
 * two identifiers are the same exactly when their canonical bytes are.
 * Ownership: views borrow from the bytes they were read from. */
#ifndef RT_TERM_IDENT_H
#define RT_TERM_IDENT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/cursor.h"
#include "base/limits.h"

typedef struct rt_pid_view {
    rt_slice node;       /* UTF-8, or latin-1 when node_latin1 */
    bool node_latin1;    /* only for old atoms holding bytes over 127 */
    uint32_t id, serial, creation;
} rt_pid_view;

typedef struct rt_ref_view {
    rt_slice node;
    bool node_latin1;
    uint32_t creation;
    uint32_t words;                       /* 0..5 */
    uint32_t word[RT_REF_WORDS_MAX];
} rt_ref_view;

/* Read one identifier and move the cursor; RT_EBAD when it is something else,
 * RT_AGAIN when cut. Old tags (PID, REFERENCE, NEW_REFERENCE) are understood.
 * Atom cache references are not: expand first. */
int rt_read_pid(rt_cursor *c, rt_pid_view *out);
int rt_read_ref(rt_cursor *c, rt_ref_view *out);
/* Reads an atom of any kind; `latin1` tells when the bytes need converting
 * (false for pure ASCII whatever the tag). */
int rt_read_atom(rt_cursor *c, rt_slice *name, bool *latin1);
/* Reads SMALL_INTEGER, INTEGER or a SMALL_BIG of at most 8 bytes that fits. */
int rt_read_i64(rt_cursor *c, int64_t *out);
/* Reads a tuple header; RT_EBAD when it is something else. */
int rt_read_tuple(rt_cursor *c, uint32_t *arity);

/* Append the canonical form. `node` is UTF-8. */
int rt_put_pid(rt_buf *b, rt_slice node, uint32_t id, uint32_t serial, uint32_t creation);
int rt_put_ref(rt_buf *b, rt_slice node, uint32_t creation, const uint32_t *word, uint32_t words);
/* Append the canonical form of whatever identifier stands at the cursor (pid,
 * reference or port), moving it. */
int rt_put_canonical(rt_buf *b, rt_cursor *c);

#endif
