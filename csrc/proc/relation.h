/* Purpose: who is linked to, watches, or may answer to whom: links, monitors
 * and aliases of the processes of one node. Wire-free: identifiers are opaque
 * canonical bytes.
 * Ownership: entries own copies of their bytes. Taken lists are the caller's.
 * Threads: any; one short internal lock, never held while calling out. Adding,
 * removing and finding take constant time, taking all the time of what is taken.
 * Limits: RT_RELATION_BYTES_MAX for each of the identifiers.
 * Errors: RT_EEXIST, RT_ENOENT, RT_ENOMEM, RT_ELIMIT. */
#ifndef RT_PROC_RELATION_H
#define RT_PROC_RELATION_H

#include "proc/message.h"

#define RT_RELATION_BYTES_MAX 65535u

enum rt_relation_kind {
    RT_REL_LINK,          /* local <-> remote */
    RT_REL_MONITOR_OUT,   /* local watches remote (a pid, or a name as an atom term) */
    RT_REL_MONITOR_IN,    /* remote watches local */
    RT_REL_ALIAS          /* ref reaches local */
};

#define RT_ALIAS_ONCE 1u        /* in flags of an alias: its first message ends it */

typedef struct rt_relation {
    struct rt_relation *next;   /* in a taken list */
    enum rt_relation_kind kind;
    uint32_t peer;              /* connection-holder's number; 0: this node */
    uint32_t flags;             /* the user's, and RT_ALIAS_ONCE */
    rt_pid local;
    rt_slice remote;            /* empty for ALIAS */
    rt_slice ref;               /* empty for LINK */
} rt_relation;

typedef struct rt_relations rt_relations;

rt_relations *rt_relations_new(void);
void rt_relations_free(rt_relations *r);
/* Copies `rel` in. A LINK is unique per (local, remote), others per (kind, ref). */
int rt_relations_add(rt_relations *r, const rt_relation *rel);
int rt_relations_remove_link(rt_relations *r, rt_pid local, rt_slice remote);
/* What a peer ends must be with that peer: RT_ENOENT otherwise. */
int rt_relations_end_link(rt_relations *r, uint32_t peer, rt_pid local, rt_slice remote);
int rt_relations_end_ref(rt_relations *r, uint32_t peer, enum rt_relation_kind kind, rt_slice ref,
                         rt_relation **out);
bool rt_relations_has_link(rt_relations *r, rt_pid local, rt_slice remote);
/* Removes the one of that kind and ref, and hands it over in *out (may be NULL: freed). */
int rt_relations_remove_ref(rt_relations *r, enum rt_relation_kind kind, rt_slice ref,
                            rt_relation **out);
/* Finds the local process an alias or monitor belongs to, 0 for none. */
rt_pid rt_relations_find_ref(rt_relations *r, enum rt_relation_kind kind, rt_slice ref);
/* The local process an alias reaches, 0 for none. An alias with RT_ALIAS_ONCE is gone
 * then: of several who reach for it together one gets it. */
rt_pid rt_relations_reach(rt_relations *r, rt_slice ref);
/* All of one process (any kind), or all LINK, MONITOR_OUT and MONITOR_IN with
 * one peer (not 0, which is this node), out of the table, as a list in the order
 * they were added. */
rt_relation *rt_relations_take_process(rt_relations *r, rt_pid local);
rt_relation *rt_relations_take_peer(rt_relations *r, uint32_t peer);
/* Of those only the ones with one of `flags`. */
rt_relation *rt_relations_take_flagged(rt_relations *r, uint32_t peer, uint32_t flags);
void rt_relation_free_list(rt_relation *list);
uint32_t rt_relations_count(const rt_relations *r);

#endif
