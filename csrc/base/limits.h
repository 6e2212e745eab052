/* Purpose: every limit of the core, its name and its default. A node may be
 * given others through rt_limits; compile-time bounds are the macros. */
#ifndef RT_BASE_LIMITS_H
#define RT_BASE_LIMITS_H

#include <stdint.h>

#define RT_NODE_NAME_BYTES_MAX 1020u     /* 255 characters of up to 4 bytes */
#define RT_ATOM_CHARS_MAX 255u
#define RT_ATOM_BYTES_MAX 1020u
#define RT_REF_WORDS_MAX 5u
#define RT_HANDSHAKE_PACKET_BYTES_MAX 2048u
#define RT_ID_SLOT_MAX (1u << 27)        /* processes of one node */
#define RT_MESSAGE_INLINE_BYTES_MAX 1024u
#define RT_FRAGMENT_BYTES (64u * 1024u)  /* where an outgoing message is cut, */
#define RT_FRAGMENT_SLACK 1024u          /* but not for a last piece of so little */
#define RT_DIRECT_WRITE_BYTES_MAX (16u * 1024u)

typedef struct rt_limits {
    uint32_t frame_bytes_max;            /* one packet after the handshake */
    uint32_t message_bytes_max;          /* one message, all fragments together */
    uint32_t term_depth_max;             /* nesting of a term */
    uint32_t fragments_in_flight_max;    /* per connection */
    uint32_t peers_max;                  /* known names */
    uint32_t handshakes_max;             /* connections that are not up yet; clients of
                                            the embedded port mapper that only ask */
    uint32_t handshake_step_ms;          /* silence allowed in each step */
    uint32_t connect_ms;                 /* TCP connect and port look-up, as client and
                                            as embedded port mapper */
    uint32_t queue_bytes_soft;           /* per peer: drain waits above */
    uint32_t queue_bytes_max;            /* per peer: send raises above */
    uint32_t processes_max;
    uint32_t spill_bytes_max;            /* per peer, while a paused box reads on; of signals
                                            beyond a box's limit_bytes */
    uint32_t signals_max;                /* beyond a box's limit */
    uint32_t pause_ms_max;
    uint32_t inflate_ratio_max;          /* compressed terms: output over input */
    uint32_t names_max;                  /* registered names; also in the embedded port mapper */
    uint32_t multicast_bytes_max;        /* copies that one packet makes, together */
} rt_limits;

#define RT_LIMITS_DEFAULT                                               \
    {                                                                   \
        .frame_bytes_max = 256u << 20, .message_bytes_max = 1u << 30,   \
        .term_depth_max = 10000, .fragments_in_flight_max = 1024,       \
        .peers_max = 65536, .handshakes_max = 1024,                     \
        .handshake_step_ms = 7000, .connect_ms = 7000,                  \
        .queue_bytes_soft = 1u << 20, .queue_bytes_max = 64u << 20,     \
        .processes_max = 1u << 24, .spill_bytes_max = 16u << 20,        \
        .signals_max = 65536,                                           \
        .pause_ms_max = 5000, .inflate_ratio_max = 1100,                \
        .names_max = 1u << 20, .multicast_bytes_max = 16u << 20         \
    }

static inline rt_limits rt_limits_default(void)
{
    rt_limits l = RT_LIMITS_DEFAULT;
    return l;
}

#endif
