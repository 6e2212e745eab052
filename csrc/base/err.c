#include "base/err.h"

const char *rt_err_text(int code) {
    switch (code) {
    case RT_OK: return "success";
    case RT_AGAIN: return "the input ends too early";
    case RT_ENOMEM: return "out of memory";
    case RT_EBAD: return "malformed input";
    case RT_ELIMIT: return "a limit would be passed";
    case RT_EINVAL: return "invalid argument";
    case RT_EFULL: return "the buffer is full";
    case RT_ENOENT: return "no such name, process, reference or node";
    case RT_EEXIST: return "the name is taken";
    case RT_ECLOSED: return "closed";
    case RT_ENOTCONN: return "not connected to that node";
    case RT_ETIME: return "the deadline passed";
    case RT_EAUTH: return "the cookies differ";
    case RT_EFLAGS: return "a mandatory distribution flag is missing";
    case RT_ENOTALLOWED: return "the connection is not allowed";
    case RT_EALIVE: return "a connection to this name stands already";
    case RT_ENOK: return "the peer keeps its own connection attempt";
    case RT_ESYS: return "a system call failed";
    case RT_EBUSY: return "busy";
    case RT_EFORK: return "used in a child process after fork";
    case RT_ESIZE: return "the claimed size differs from the real one";
    default: return code > 0 ? "success" : "unknown error";
    }
}
