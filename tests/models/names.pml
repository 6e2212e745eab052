/* csrc/proc/names.c: one writer (the lock makes all writers one) that puts, drops, grows the table
 * and gives pages back, beside a reader that looks a name up; each load and store of the code is a
 * step of its own. Readers write nothing, so one stands for any number of them.
 * Left out: names of more than one cell, weaker memory orders.
 *
 * Checked in every interleaving: what find gives was so at some moment of its run (linearizable):
 * the pid it names had that name, or the name was not there. And when the writer has come to its
 * end, so does find (run with LIVENESS). */
#ifndef OPS
#define OPS 4                   /* names put or dropped, and pages given back */
#endif
#ifndef CELLS
#define CELLS 3
#endif
#ifndef GROWTHS
#define GROWTHS 2
#endif
#define NAMES 3

/* Tables of 1, 2 and 4 buckets. A name is two words; its hash lets 0 and 1 meet in the
 * first two tables, and 0 and 2 in the first alone. */
#define W0(name) ((name) & 1)
#define W1(name) ((name) >> 1)
#define HASH(name) ((name) == 0 -> 0 : ((name) == 1 -> 2 : 1))
#define MASK(t) ((1 << (t)) - 1)
#define SET(t) ((t) & 1)
#define HEAD(t, b) head[MASK(t) + (b)]
#define NEXT(t, i) next[SET(t) * (CELLS + 1) + (i)]
#define END 8                   /* END | bucket */
#define LIVE(stamp) ((stamp) & 1)

byte current, head[7], next[2 * (CELLS + 1)];
byte stamp[CELLS + 1], w0[CELLS + 1], w1[CELLS + 1], whose[CELLS + 1];

/* The writer's own. */
bool growing, used[CELLS + 1], zeroed[CELLS + 1];
byte cursor, from[CELLS + 1];

/* What is so, and what has been so since the reader began. */
byte truth[NAMES], asked;
bool was_absent, finding, writer_ended, reader_ended;
short was_pids;                 /* a bit a pid */

inline note(name) {
    if
    :: finding && name == asked ->
        if
        :: truth[name] == 0 -> was_absent = true
        :: else -> was_pids = was_pids | (1 << truth[name])
        fi
    :: else
    fi
}

inline link_into(t, i, name) {
    NEXT(t, i) = HEAD(t, HASH(name) & MASK(t));
    HEAD(t, HASH(name) & MASK(t)) = i
}

inline put(name, i) {
    used[i] = true;
    if
    :: zeroed[i] ->
        zeroed[i] = false;
#ifndef BREAK_FROM
        stamp[i] = from[i]
#endif
    :: else
    fi;
    w0[i] = W0(name);
    w1[i] = W1(name);
    pids++;
    whose[i] = pids;
#ifdef BREAK_PUT                /* a name before it can be reached */
    d_step { stamp[i] = stamp[i] + 1; truth[name] = pids; note(name) };
#endif
    link_into(current, i, name);
    if
    :: growing && i <= cursor -> link_into(current + 1, i, name)
    :: else
    fi;
#ifndef BREAK_PUT
    d_step { stamp[i] = stamp[i] + 1; truth[name] = pids; note(name) };
#endif
    cell[name] = i
}

inline unlink_from(t, i, name) {
    if
    :: HEAD(t, HASH(name) & MASK(t)) == i -> HEAD(t, HASH(name) & MASK(t)) = NEXT(t, i)
    :: else ->
        d_step {                /* the writer's own way to the one before it */
            k = HEAD(t, HASH(name) & MASK(t));
            do
            :: NEXT(t, k) == i -> break
            :: else -> k = NEXT(t, k)
            od
        };
        NEXT(t, k) = NEXT(t, i)
    fi
}

inline drop(name) {
    c = cell[name];
    d_step {
#ifdef BREAK_STAMP_DROP         /* the cell is used again under its old stamp */
        stamp[c] = stamp[c] - 1;
#else
        stamp[c] = stamp[c] + 1;
#endif
        truth[name] = 0;
        note(name)
    };
    unlink_from(current, c, name);
    if
    :: growing && c <= cursor -> unlink_from(current + 1, c, name)
    :: else
    fi;
    if
    :: stamp[c] > from[c] -> from[c] = stamp[c]
    :: else
    fi;
    cell[name] = 0;
    used[c] = false
}

inline grow() {
    (growing || current < GROWTHS);
    if
    :: !growing ->
        d_step {
            growing = true;
            cursor = 0;
            for (k : 0 .. MASK(current + 1)) { HEAD(current + 1, k) = END | k }
        }
    :: growing && cursor == CELLS ->
        current++;
        growing = false
    :: growing && cursor < CELLS ->
        c = cursor + 1;
        if
        :: LIVE(stamp[c]) -> link_into(current + 1, c, (w0[c] | (w1[c] << 1)))
        :: else
        fi;
        d_step { cursor = c; c = 0; k = 0 }
    fi
}

inline choose_free() {          /* any */
    if
    :: !used[1] -> i = 1
    :: !used[2] -> i = 2
#if CELLS > 2
    :: !used[3] -> i = 3
#endif
    :: else -> i = 0
    fi
}

proctype writer() {
    byte op, name, i, k, c, pids, cell[NAMES];
    do
    :: op == OPS -> break
    :: grow()
    :: op < OPS ->
        op++;
        atomic { select(name : 0 .. NAMES - 1) };
        if
        :: cell[name] -> drop(name)
        :: else ->
            choose_free();
            if
            :: i -> put(name, i)
            :: else
            fi
        fi;
        d_step { name = 0; i = 0; k = 0; c = 0 }
    :: op < OPS ->              /* a page goes at once */
        op++;
        choose_free();
        if
        :: i && from[i] && !zeroed[i] -> skip
        :: else -> goto no_page
        fi;
        d_step {
            stamp[i] = 0;
            w0[i] = 0;
            w1[i] = 0;
            whose[i] = 0;
            next[i] = 0;
            next[CELLS + 1 + i] = 0;
            zeroed[i] = true
        };
no_page:
        i = 0
    od;
    writer_ended = true
}

proctype reader() {
    byte t, i, s, p;
    atomic { select(i : 0 .. NAMES - 1) };
    atomic { asked = i; finding = true; note(asked) };
again:
    t = current;
    i = HEAD(t, HASH(asked) & MASK(t));
    do
    :: i >= END -> break
    :: i < END ->
        s = stamp[i];
        if
        :: !LIVE(s) -> goto onward
        :: else
        fi;
        if
        :: w0[i] != W0(asked) -> goto onward
        :: else
        fi;
        if
        :: w1[i] != W1(asked) -> goto onward
        :: else
        fi;
        p = whose[i];
        if
#ifdef BREAK_STAMP
        :: true ->
#else
        :: stamp[i] == s ->
#endif
            assert(was_pids & (1 << p));
            goto found
        :: else -> goto again
        fi;
onward:
        i = NEXT(t, i);
        if
        :: i == 0 -> goto again
        :: else
        fi
    od;
    if
#ifdef BREAK_MARK
    :: true
#else
    :: i == (END | (HASH(asked) & MASK(t)))
#endif
    :: else -> goto again
    fi;
    if
#ifdef BREAK_CURRENT
    :: true
#else
    :: current == t
#endif
    :: else -> goto again
    fi;
    assert(was_absent);
found:
    reader_ended = true
}

#ifdef LIVENESS
ltl ends { [] (writer_ended -> <> reader_ended) }
#endif

init {
    atomic {
        HEAD(0, 0) = END;
        run writer();
        run reader()
    }
}
