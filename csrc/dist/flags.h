/* Purpose: distribution capability flags and the sets this node works with.
 * Source: Erlang/OTP documentation, erl_dist_protocol, "Distribution Flags". */
#ifndef RT_DIST_FLAGS_H
#define RT_DIST_FLAGS_H

#include <stdint.h>

#define RT_F_PUBLISHED            0x1ull
#define RT_F_ATOM_CACHE           0x2ull
#define RT_F_EXTENDED_REFERENCES  0x4ull
#define RT_F_DIST_MONITOR         0x8ull
#define RT_F_FUN_TAGS             0x10ull
#define RT_F_DIST_MONITOR_NAME    0x20ull
#define RT_F_HIDDEN_ATOM_CACHE    0x40ull
#define RT_F_NEW_FUN_TAGS         0x80ull
#define RT_F_EXTENDED_PIDS_PORTS  0x100ull
#define RT_F_EXPORT_PTR_TAG       0x200ull
#define RT_F_BIT_BINARIES         0x400ull
#define RT_F_NEW_FLOATS           0x800ull
#define RT_F_UNICODE_IO           0x1000ull
#define RT_F_DIST_HDR_ATOM_CACHE  0x2000ull
#define RT_F_SMALL_ATOM_TAGS      0x4000ull
#define RT_F_UTF8_ATOMS           0x10000ull
#define RT_F_MAP_TAG              0x20000ull
#define RT_F_BIG_CREATION         0x40000ull
#define RT_F_SEND_SENDER          0x80000ull
#define RT_F_BIG_SEQTRACE_LABELS  0x100000ull
#define RT_F_EXIT_PAYLOAD         0x400000ull
#define RT_F_FRAGMENTS            0x800000ull
#define RT_F_HANDSHAKE_23         0x1000000ull
#define RT_F_UNLINK_ID            0x2000000ull
#define RT_F_MANDATORY_25_DIGEST  0x4000000ull
#define RT_F_SPAWN                (1ull << 32)
#define RT_F_NAME_ME              (1ull << 33)
#define RT_F_V4_NC                (1ull << 34)
#define RT_F_ALIAS                (1ull << 35)
#define RT_F_ALTACT_SIG           (1ull << 37)
#define RT_F_NATIVE_RECORDS       (1ull << 38)
/* Ours: the peer unpacks (see control.h). Told by what follows a name in the handshake, never
 * as a flag. */
#define RT_F_PACKS                (1ull << 63)

/* What a peer must have (OTP 25's own list). */
#define RT_FLAGS_MANDATORY                                                     \
    (RT_F_EXTENDED_REFERENCES | RT_F_FUN_TAGS | RT_F_NEW_FUN_TAGS |            \
     RT_F_EXTENDED_PIDS_PORTS | RT_F_EXPORT_PTR_TAG | RT_F_BIT_BINARIES |      \
     RT_F_NEW_FLOATS | RT_F_UTF8_ATOMS | RT_F_MAP_TAG | RT_F_BIG_CREATION |    \
     RT_F_HANDSHAKE_23)

/* What this node offers. */
#define RT_FLAGS_OURS                                                          \
    (RT_FLAGS_MANDATORY | RT_F_DIST_MONITOR | RT_F_DIST_MONITOR_NAME |         \
     RT_F_DIST_HDR_ATOM_CACHE | RT_F_SMALL_ATOM_TAGS | RT_F_SEND_SENDER |      \
     RT_F_BIG_SEQTRACE_LABELS | RT_F_EXIT_PAYLOAD | RT_F_FRAGMENTS |           \
     RT_F_UNLINK_ID | RT_F_MANDATORY_25_DIGEST | RT_F_SPAWN | RT_F_V4_NC |     \
     RT_F_ALIAS | RT_F_ALTACT_SIG | RT_F_UNICODE_IO)

/* The name of the lowest flag set in `flags`, "none" for 0, "unknown" for a
 * bit without a name; a constant string. */
const char *rt_flag_name(uint64_t flags);

#endif
