/* Purpose: the receiving atom cache of one connection: 8 segments of 256.
 * Ownership: the cache owns a copy of every atom it holds.
 * Threads: one at a time. Strictly ordered: headers must be read in the order
 * the peer wrote them.
 * Limits: 2,048 atoms of at most 1,020 bytes. */
#ifndef RT_DIST_ATOM_CACHE_H
#define RT_DIST_ATOM_CACHE_H

#include "base/base.h"
#include "base/cursor.h"
#include "term/scan.h"

typedef struct rt_atom_cache rt_atom_cache;

rt_atom_cache *rt_atom_cache_new(void);   /* small; the slots come on demand */
void rt_atom_cache_free(rt_atom_cache *cache);

/* Reads the atom section of a dist header (the count byte, flags, references)
 * at the cursor, updates the cache and fills `atoms` with slices that live
 * until the next call. RT_EBAD on a malformed section or an empty slot that is
 * referred to as old; RT_ENOMEM. Old latin-1 atoms cannot occur: headers carry
 * UTF-8. */
int rt_atom_cache_read(rt_atom_cache *cache, rt_cursor *c, rt_atoms *atoms);
/* Moves with every slot that is written: while it stays, a section reads as it did, and the
 * slices it gave live on, if it wrote none itself (one that writes a slot twice gives a slice
 * that ends with the next call). */
uint64_t rt_atom_cache_changes(const rt_atom_cache *cache);

#endif
