/* csrc/proc/registry.c: one slot that serves one process after another, the worst case for a
 * stale pid. An owner makes processes, reads some of their messages and releases them; killers
 * end them; pushers send to any of their pids, old or to come. Each atomic operation of the code
 * is a step of its own, and a pusher may stand still between any two.
 * Left out: names (names.pml), wake-ups (mailbox.pml), weaker memory orders.
 *
 * Checked in every interleaving:
 *   - no process gets what was sent to another (M1);
 *   - exit wins once per process (R2); a slot is in one place (R3);
 *   - a slot is not used again while something admitted is on its way (M3);
 *   - what was accepted is delivered or counted as lost, and when all have gone, nothing is left
 *     in limbo, though nobody calls new or release any more. */
#ifndef PUSHERS
#define PUSHERS 2
#endif
#ifndef EACH
#define EACH 2                  /* messages of each pusher */
#endif
#ifndef KILLERS
#define KILLERS 1
#endif
#ifndef LIVES
#define LIVES 2
#endif
#define M (PUSHERS * EACH)

byte gate_generation, gate_count;       /* one word with gate_alive */
bool gate_alive;
byte top, next[M + 1], target[M + 1];
byte popped, owed, serial;
#define FREE 0
#define OWNED 1
#define LEFT 2
#define OWED 3
byte place = FREE;              /* mailbox.spare */
bool limbo, locked, zeroed;
byte accepted, delivered, lost, deaths[LIVES];

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* Takes the pile and counts it; uses at, n. */
inline drain(counter, whose) {
    d_step { at = top; top = 0 };
    do
    :: at == 0 -> break
    :: else ->
        assert(target[at] == whose);
        popped++;
        counter++;
        at = next[at]
    od
}

inline settle() {               /* place_locked of the one slot; uses at, all */
    limbo = false;
    drain(lost, serial);
    all = gate_count == popped;
    if
    :: all && place == OWED -> place = LEFT; owed--
    :: else
    fi;
    if
    :: all -> place = FREE
    :: else -> limbo = true
    fi
}

inline sweep() {
    if
    :: limbo -> settle()
    :: else
    fi
}

proctype owner() {
    byte at, life = 0;
    bool all, won;
    do
    :: life == LIVES -> break
    :: else ->
        /* rt_process_new */
        lock();
        sweep();
        if
        :: place != FREE -> unlock(); goto stop         /* RT_ELIMIT */
        :: else
        fi;
        if
        :: true
        :: true ->              /* its page has been given back, word by word */
            zeroed = true;
            d_step { gate_generation = 0; gate_alive = false; gate_count = 0 };
            popped = 0
        fi;
        serial = life;          /* R1; after a page has gone: see slots.h */
        place = OWNED;
        assert(top == 0);
        popped = 0;
        d_step { gate_generation = serial; gate_alive = true; gate_count = 0 };
        unlock();
        /* Reads some, or none. */
        if
        :: true
        :: true -> drain(delivered, serial)
        fi;
        /* rt_process_exit by its own hand, unless a killer was faster. */
        lock();
        won = gate_alive;
        if
        :: won -> gate_alive = false; deaths[life]++
        :: else
        fi;
        unlock();
        /* rt_process_release */
        drain(lost, serial);
        all = gate_count == popped;
        lock();
        place = LEFT;
#ifdef BREAK_OWED               /* announced after the last look at the pile */
        if
        :: !all ->
            settle();
            if
            :: limbo -> place = OWED; owed++
            :: else
            fi
        :: else -> settle()
        fi;
#else
        if
        :: !all -> place = OWED; owed++
        :: else
        fi;
        settle();
#endif
        unlock();
        life++
    od;
stop:
    skip
}

proctype killer() {
    byte whose;
    bool won;
    atomic { select(whose : 0 .. LIVES - 1) };
    if
    :: d_step { gate_alive && gate_generation == whose -> skip };    /* rt_registry_lookup */
        lock();
        d_step { won = gate_alive && gate_generation == whose };
        if
        :: won -> gate_alive = false; deaths[whose]++
        :: else
        fi;
        unlock()
    :: else
    fi
}

proctype pusher(byte p) {
    byte k = 0, m, whose, seen_top, at;
    bool ok, all;
    do
    :: k == EACH -> break
    :: else ->
        m = p * EACH + k + 1;
        atomic { select(whose : 0 .. LIVES - 1) };
        target[m] = whose;
        atomic {                /* step 1: the CAS of the gate, by which the push stands or falls */
#ifdef BREAK_GENERATION
            ok = gate_alive;
#else
            ok = gate_alive && gate_generation == whose;
#endif
            if
            :: ok -> gate_count++; accepted++
            :: else
            fi
        };
        if
        :: ok ->
            seen_top = top;
            do
            :: next[m] = seen_top;
                atomic {
                    if
                    :: top == seen_top -> top = m; ok = true
                    :: else -> seen_top = top; ok = false
                    fi
                };
                if
                :: ok -> break
                :: else
                fi
            od;
            if
            :: owed > 0 -> lock(); sweep(); unlock()
            :: else
            fi
        :: else
        fi;
        k++
    od
}

init {
    byte i;
    atomic {
        run owner();
        for (i : 1 .. KILLERS) { run killer() };
        for (i : 0 .. PUSHERS - 1) { run pusher(i) }
    };
    _nr_pr == 1;
    assert(!limbo && owed == 0 && top == 0);
    assert(accepted == delivered + lost);
    for (i : 0 .. LIVES - 1) { assert(deaths[i] <= 1) };
    assert(place == FREE)
}
