/* Purpose: the one list of result codes of the C core.
 * Convention: functions return 0 (or a count) on success and a negative code
 * on failure; outputs are untouched on failure. Parsers return the bytes they
 * consumed, RT_AGAIN when the input ends too early, or another negative code. */
#ifndef RT_BASE_ERR_H
#define RT_BASE_ERR_H

enum rt_err {
    RT_OK = 0,
    RT_AGAIN = -1,       /* the input ends before the object does; try again with more */
    RT_ENOMEM = -2,      /* an allocation failed */
    RT_EBAD = -3,        /* malformed input */
    RT_ELIMIT = -4,      /* a limit of base/limits.h would be passed */
    RT_EINVAL = -5,      /* the caller's argument is wrong */
    RT_EFULL = -6,       /* a bounded buffer is at its hard limit */
    RT_ENOENT = -7,      /* no such name, process, reference or node */
    RT_EEXIST = -8,      /* the name is taken */
    RT_ECLOSED = -9,     /* the object is closed */
    RT_ENOTCONN = -10,   /* no connection to that node */
    RT_ETIME = -11,      /* a deadline passed */
    RT_EAUTH = -12,      /* the cookie does not match */
    RT_EFLAGS = -13,     /* a mandatory distribution flag is missing */
    RT_ENOTALLOWED = -14,/* the peer or this node does not allow the connection */
    RT_EALIVE = -15,     /* the peer says a connection to this name stands already */
    RT_ENOK = -16,       /* the peer keeps its own simultaneous attempt */
    RT_ESYS = -17,       /* a system call failed; errno tells */
    RT_EBUSY = -18,      /* somebody else holds what is needed */
    RT_EFORK = -19,      /* used in a child process after fork */
    RT_ESIZE = -20       /* a claimed size differs from the real one */
};

/* Returns a constant English phrase for a code; never NULL. */
const char *rt_err_text(int code);

#endif
