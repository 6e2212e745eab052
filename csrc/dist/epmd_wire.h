/* Purpose: what the port mapper's client and server share: message codes and
 * what a name may be.
 * Ownership: nothing is kept. Threads: any.
 * Limits: RT_EPMD_NAME_BYTES_MAX and 255 characters, as in epmd itself. */
#ifndef RT_DIST_EPMD_WIRE_H
#define RT_DIST_EPMD_WIRE_H

#include "base/base.h"

enum rt_epmd_code {
    RT_EPMD_DUMP_REQ = 100,
    RT_EPMD_KILL_REQ = 107,
    RT_EPMD_NAMES_REQ = 110,
    RT_EPMD_STOP_REQ = 115,
    RT_EPMD_ALIVE2_X_RESP = 118,
    RT_EPMD_PORT2_RESP = 119,
    RT_EPMD_ALIVE2_REQ = 120,
    RT_EPMD_ALIVE2_RESP = 121,
    RT_EPMD_PORT2_REQ = 122
};

#define RT_EPMD_VERSION 6          /* of the distribution protocol, since OTP 23 */
#define RT_EPMD_NAME_BYTES_MAX 1020u

/* Names are UTF-8 and end up in lines of text: no control characters, no
 * blanks. */
bool rt_epmd_name_ok(rt_slice name);

#endif
