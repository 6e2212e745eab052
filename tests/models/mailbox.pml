/* csrc/proc/mailbox.c with one notifier: producers, a closer and the consumer, each atomic
 * operation of the code a step of its own. What is left out: batches (a chain is one message),
 * several boxes on one notifier, and memory orders weaker than sequential consistency (the
 * comments at the code argue for those, and the thread sanitizer looks for their races).
 *
 * Checked in every interleaving:
 *   - the consumer never sleeps for good beside news (an invalid end state);
 *   - each producer's messages come in its order, each once;
 *   - what was accepted is delivered, what was refused is not; the count is exact at the end;
 *   - with a message limit, what waits never passes it (M4), and none is dropped for a number
 *     that is none (more popped than counted in). */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef EACH
#define EACH 2                  /* messages of each producer */
#endif
#ifndef LIMIT
#define LIMIT 0                 /* messages, with overflow "drop"; 0: none */
#endif
#define M (PRODUCERS * EACH)
#define MESSAGE(p, k) ((p) * EACH + (k))        /* 1 .. M, k from 1 */
#define PRODUCER(m) (((m) - 1) / EACH)

/* The gate is one word: both are read and written in one step. */
bool gate_open = true;
byte gate_count;
byte top, next[M + 1];          /* the pile; 0 is NULL */
byte popped;
#define IDLE 0
#define ARMED 1
#define QUEUED 2
byte state;                     /* of the ready entry */
bool listed, bell;              /* it stands in the notifier's list; the eventfd */
byte accepted, delivered, dropped;

inline fire() {                 /* rt_ready_fire: D, then the claim */
    if
    :: state == ARMED ->
        atomic {
            if
            :: state == ARMED -> state = QUEUED; claimed = true
            :: else -> claimed = false
            fi
        };
        if
        :: claimed -> listed = true; bell = true
        :: else
        fi
    :: else
    fi
}

proctype producer(byte p) {
    byte k = 1, m, seen_popped, seen_count, seen_top;
    bool claimed, seen_open, ok;
    do
    :: k > EACH -> break
    :: else ->
        m = MESSAGE(p, k);
again:
        /* Step 1: admission. */
#if LIMIT
        atomic { seen_open = gate_open; ok = true };
        if
        :: !seen_open -> goto refused
        :: else
        fi;
#ifdef BREAK_LIMIT              /* the count first: a pop may come between */
        atomic { seen_count = gate_count; seen_open = gate_open };
        seen_popped = popped;
#else
        seen_popped = popped;
        atomic { seen_count = gate_count; seen_open = gate_open };
#endif
        if
        :: !seen_open -> goto refused
        :: seen_open && ((seen_count - seen_popped) & 255) >= LIMIT ->
#ifndef BREAK_STALE             /* an old number of popped makes it look fuller than it is */
            if
            :: popped != seen_popped -> goto again
            :: else
            fi;
#endif
            assert(((seen_count - seen_popped) & 255) == LIMIT);
            dropped++;
            goto after
        :: else
        fi;
        atomic {
            if
            :: gate_open == seen_open && gate_count == seen_count -> gate_count++
            :: else -> ok = false
            fi
        };
        if
        :: !ok -> goto again
        :: else
        fi;
#else
        atomic {
            ok = gate_open;
            if
            :: ok -> gate_count++
            :: else
            fi
        };
        if
        :: !ok -> goto refused
        :: else
        fi;
#endif
        /* Step 2: the bytes fit, or the admission is given back. */
        if
        :: true
        :: true ->
            dropped++;
            atomic { gate_count--; ok = gate_open };    /* C */
#ifndef BREAK_GIVE_BACK
            if
            :: !ok -> fire()
            :: else
            fi;
#endif
            goto after
        fi;
        accepted++;
        /* Step 3: the pile. */
#ifdef BREAK_FIRE               /* looks whether the box is armed, and pushes then */
        seen_popped = state;
#endif
        seen_top = top;
        do
        :: next[m] = seen_top;
            atomic {
                if
                :: top == seen_top -> top = m; ok = true         /* C */
                :: else -> seen_top = top; ok = false
                fi
            };
            if
            :: ok -> break
            :: else
            fi
        od;
#ifdef BREAK_FIRE
        if
        :: seen_popped == ARMED -> fire()
        :: else
        fi;
#else
        fire();
#endif
        goto after;
refused:
        dropped++;
after:
        k++
    od
}

proctype closer() {
    bool claimed;
    gate_open = false;          /* C */
    fire()
}

proctype consumer() {
    byte head, at, older, m, waiting, last[PRODUCERS];
    bool news, done;
    do
    :: head != 0 ->             /* pop */
        m = head;
        head = next[m];
        assert(m - PRODUCER(m) * EACH > last[PRODUCER(m)]);
        last[PRODUCER(m)] = m - PRODUCER(m) * EACH;
        delivered++;
        popped++
    :: head == 0 && top != 0 -> /* rt_pile_take: the exchange, and turned around */
        d_step { at = top; top = 0; done = false };
        d_step {
            do
            :: at == 0 -> break
            :: else -> older = next[at]; next[at] = head; head = at; at = older
            od
        }
    :: head == 0 && top == 0 -> /* rt_mailbox_arm */
#ifdef BREAK_ARM                /* looks, and arms then */
        news = top != 0;
        atomic { done = !gate_open && gate_count == popped };
#endif
        atomic {                /* A */
            if
            :: state == IDLE -> state = ARMED
            :: else
            fi
        };
#ifndef BREAK_ARM
        news = top != 0;        /* B */
        atomic { done = !gate_open && gate_count == popped };
#endif
        if
        :: news || done ->
            atomic {
                if
                :: state == ARMED -> state = IDLE
                :: else
                fi
            };
            if
            :: done && !news -> break
            :: else
            fi
        :: else ->
            bell;               /* sleeps */
            bell = false;
            if
            :: listed -> listed = false; state = IDLE
            :: else
            fi
        fi
    od;
    assert(top == 0 && gate_count == popped)
}

/* M4. What is accepted later than this look is popped later too. */
#if LIMIT
proctype watcher() {
    do
    :: d_step { assert(gate_count - popped <= LIMIT) }
    :: _nr_pr <= 2 -> break
    od
}
#endif

init {
    byte i;
    atomic {
        for (i : 0 .. PRODUCERS - 1) { run producer(i) };
        run closer();
        run consumer();
#if LIMIT
        run watcher()
#endif
    };
    _nr_pr == 1;
    assert(accepted == delivered && accepted + dropped == M)
}
