/* Purpose: pid -> process by slot and generation; name -> pid by a lock-free
 * hash; the life of a process.
 *
 * A pid is serial << 32 | id: the id is the slot, the serial its generation.
 * Slots are type-stable (slots.h): a stale pointer always points at a slot, and the
 * generation in its gate tells whose; where a spike has gone, the gate reads as zero. A dead pid never reaches a new process: the mailbox's
 * gate admits a push only for the generation it holds, in one atomic step.
 *
 * Life: new (alive) -> exit (dead to lookups, mailbox closed, name gone; the
 * owner may still read what was accepted and the reason) -> release (what is left
 * in the mailbox is freed, and the slot with it). A slot
 * whose mailbox still waits for an admitted push on its way waits in limbo, and
 * is freed by whoever comes by later, at the latest by that push. So each
 * suspended producer holds back at most the slots it is pushing to, and if these are
 * several those who pop what came in that moment; readers hold back nothing.
 *
 * Invariants:
 *   R1 a slot's generation grows with each process, by one unless its segment was given
 *      back meanwhile (and wraps after 2^32);
 *   R2 exactly one exit wins per process: it ends the gate's `alive` under the lock;
 *   R3 a slot is free or in limbo, or owned by one owner, never two of these;
 *   R4 exit takes the name away before the life, in one go under the lock: there a
 *      name's pid is alive, and who has seen a process dead does not find its name.
 * Threads:
 *   operation                     | may run with | needs
 *   lookup(_many), whereis,       | everything   | nothing; writes no shared line
 *   name_of                       |              |
 *   push, push_together           | everything   | nothing; the lock only while a
 *                                 |              | slot in limbo waits for pushes
 *   new, exit, register,          | everything   | nothing; a short lock among
 *   unregister, each, each_name   |              | themselves
 *   pop, arm, bind, limit,        | everything   | the owner of the process
 *   reason, release               |              | (one thread at a time)
 *   free                          | nothing      | that nobody is inside any call
 * Order: gate (mailbox.h); slots (slots.h); named: release in register, acquire in
 * name_of; owed: seq_cst, and why, see registry.c; count, lost: relaxed, they publish
 * nothing; reason, flags, user: published by the gate. whereis, register and unregister
 * each act at one moment; an exit at two, see R4. name_of may lag behind whereis.
 * Limits: processes_max, names_max; ids are 1 .. processes_max.
 * Errors: RT_ELIMIT, RT_ENOMEM, RT_EEXIST, RT_ENOENT, RT_EINVAL, RT_ECLOSED, RT_EFULL. */
#ifndef RT_PROC_REGISTRY_H
#define RT_PROC_REGISTRY_H

#include "proc/mailbox.h"

#define RT_PROCESS_TRAP_EXIT 1u  /* exit signals become messages */
#define RT_PROCESS_HELD 2u       /* peers are held back until this box has room */
#define RT_PROCESS_DOOMED 4u     /* its box was full, and will be closed for it */

typedef struct rt_process {
    _Alignas(RT_CACHE_LINE) rt_mailbox mailbox;  /* first */
    rt_pid self;                     /* stays until release; owner only */
    void *user;                      /* the owner's; NULL in a new process */
    union {
        _Atomic(rt_message *) reason;    /* see rt_process_reason */
        _Atomic uint32_t next_free;      /* of a free slot, and of one in limbo */
    };
    _Atomic uint32_t flags;          /* RT_PROCESS_*, the embedder's; 0 in a new one */
    _Atomic uint32_t named;          /* its name's cell; 0: it has none */
} rt_process;

typedef struct rt_registry rt_registry;

rt_registry *rt_registry_new(uint32_t processes_max, uint32_t names_max);
/* All processes must have been released or nobody may use them any more. The
 * notifiers they are bound to may go before or after. */
void rt_registry_free(rt_registry *r);

int rt_process_new(rt_registry *r, rt_process **out);
/* The living process, or NULL. The pointer stays a slot for ever, but may
 * become another process's: use it for one push, or as its owner. */
rt_process *rt_registry_lookup(rt_registry *r, rt_pid pid);
/* The slot's number of each living process, from 1 upward; -1 for the others. */
void rt_registry_lookup_many(rt_registry *r, const rt_pid *pids, size_t n, int64_t *slots);
/* Looks up and pushes. RT_ENOENT when there is no such process (the chain stays
 * the caller's), else as rt_mailbox_push. */
int rt_registry_push(rt_registry *r, rt_pid pid, rt_chain *chain, bool *over);
/* What of several chains is for one process, and what became of it. */
typedef struct rt_share {
    rt_pid to;
    rt_chain chain;
    uint64_t bytes;     /* of the chain, as it was pushed */
    int rc;             /* as of rt_registry_push */
    bool over;
} rt_share;
/* The same with each of n shares, each for another process, in their order, and so that nobody who
 * pops gets a message of one of them before all are there. */
void rt_registry_push_together(rt_registry *r, rt_share *shares, size_t n);
/* The same for a signal: it passes the box's limits by `extra`. Beyond that RT_EFULL,
 * whatever the box's policy; the caller closes it. */
int rt_registry_signal(rt_registry *r, rt_pid pid, rt_chain *chain, const rt_room *extra);
/* Kills: RT_OK exactly once per process (the winner goes on to tell links and
 * monitors), RT_ENOENT for everybody else. `reason` is an external term. */
int rt_process_exit(rt_registry *r, rt_pid pid, rt_slice reason);
/* The reason of a process of one's own whose mailbox is closed by exit, as a term;
 * empty when it lives, or when memory was short. */
rt_slice rt_process_reason(rt_process *p);
bool rt_process_alive(const rt_process *p);   /* owner only */
/* Frees the slot of a process of one's own that has exited. Its ready entry will
 * not be given out by a notifier any more. */
void rt_process_release(rt_registry *r, rt_process *p);
/* Pops for the owner: like rt_mailbox_pop. What is new is given when nobody is pushing together any
 * more: see there. That takes a microsecond, unless a thread is suspended in it. */
rt_message *rt_process_pop(rt_registry *r, rt_process *p);

/* RT_EEXIST: the name is taken, or the process has one. RT_ENOENT: it is dead. */
int rt_registry_register(rt_registry *r, rt_slice name, rt_pid pid);
int rt_registry_unregister(rt_registry *r, rt_slice name);           /* RT_ENOENT */
rt_pid rt_registry_whereis(rt_registry *r, rt_slice name);           /* 0: nobody */
/* Moves whenever a name comes or goes: while it is what it was before a whereis, that
 * answer is still right. */
uint64_t rt_registry_names_changes(rt_registry *r);
/* The name of a process copied to `out` (RT_ATOM_BYTES_MAX bytes); its length, 0 for none. */
size_t rt_registry_name_of(rt_registry *r, rt_pid pid, uint8_t *out);
/* Calls f for each process that has not been released, living or not / each name, under
 * the lock: a consistent snapshot, except that processes may die meanwhile. f must not
 * call back. */
void rt_registry_each(rt_registry *r, void (*f)(void *arg, rt_process *p), void *arg);
void rt_registry_each_name(rt_registry *r, void (*f)(void *arg, rt_slice name, rt_pid pid),
                           void *arg);
uint32_t rt_registry_count(const rt_registry *r);       /* living processes */
/* Messages that were accepted and never read: their process was released. */
uint64_t rt_registry_lost(const rt_registry *r);
/* Released slots that are not free yet. */
uint32_t rt_registry_limbo(rt_registry *r);

#endif
