/* Purpose: name -> pid, read without a lock; internal to proc/.
 *
 * Nothing is deferred and nothing is retired: cells are type-stable (slots.h), and a
 * reader validates what it read. So a reader that stalls for ever delays nothing and
 * holds nothing back. A name takes a cell of 64 bytes for its first 28 bytes and one
 * more per 28 bytes; what a spike has left is given back. The bound of what is kept: the
 * hash table stays as large as the most names there have been at once (4 bytes a
 * bucket, at most two buckets a name), and the smaller ones before it add up to less.
 *
 * Threads:
 *   find, read     | may run with everything | nothing; no shared line is written
 *   put, drop,     | find, read              | one writer at a time (the caller's lock)
 *   index, pid,    |                         |
 *   each, count    |                         |
 *   free           | nothing                 |
 * Invariants:
 *   A1 a cell's stamp is odd exactly while the cell is a name. Its name, hash and
 *      pid do not change while the stamp stays;
 *   A2 in the current table every name stands in the chain of its bucket, at every
 *      moment of its life as a name; a chain ends with END | its bucket number;
 *   A3 a cell enters a chain at its head, and two names that stay keep their order;
 *   A4 a cell has a link for each of two tables, the current one and the next one
 *      that is being filled; a table that has been replaced is never current again.
 * Limits: names_max names of RT_ATOM_BYTES_MAX bytes. A reader starts again when
 * writers touched what it walked through; each time some writer has got on.
 * Order: readers acquire every field, writers release it; a name comes and goes with the
 * store of its cell's stamp (names.c says why that is enough).
 * ABA: a stamp counts 47 bits of use per cell.
 * Errors: RT_EEXIST, RT_ELIMIT, RT_ENOMEM, RT_EINVAL (empty or too long). */
#ifndef RT_PROC_NAMES_H
#define RT_PROC_NAMES_H

#include "base/base.h"
#include "proc/message.h"

typedef struct rt_names rt_names;

rt_names *rt_names_new(uint32_t names_max);
void rt_names_free(rt_names *n);

/* The pid of a name, or 0. */
rt_pid rt_names_find(const rt_names *n, rt_slice name);
/* Copies the name in cell `index` to out, if it still is a name of that pid; its
 * length, else 0. Any index put has ever given is fine. */
size_t rt_names_read(const rt_names *n, uint32_t index, rt_pid pid, uint8_t *out);

/* Adds; *index (never 0) is its cell. */
int rt_names_put(rt_names *n, rt_slice name, rt_pid pid, uint32_t *index);
void rt_names_drop(rt_names *n, uint32_t index);
uint32_t rt_names_index(const rt_names *n, rt_slice name);   /* 0: there is none */
rt_pid rt_names_pid(const rt_names *n, uint32_t index);
void rt_names_each(const rt_names *n, void (*f)(void *arg, rt_slice name, rt_pid pid), void *arg);
uint32_t rt_names_count(const rt_names *n);
/* Moves with every put and drop: while it stays, what find gave is still so. Read it
 * before find. */
uint64_t rt_names_changes(const rt_names *n);

#endif
