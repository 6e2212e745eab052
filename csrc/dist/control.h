/* Purpose: control messages, both ways.
 * Ownership: parsed slices point into the input, which must be expanded (no
 * atom cache references).
 * Errors: RT_EBAD for an unknown opcode, a wrong arity or a wrong element;
 * RT_AGAIN when the tuple is cut. */
#ifndef RT_DIST_CONTROL_H
#define RT_DIST_CONTROL_H

#include "base/base.h"
#include "base/buf.h"

enum rt_control_op {
    RT_OP_LINK = 1, RT_OP_SEND = 2, RT_OP_EXIT = 3, RT_OP_UNLINK = 4,
    RT_OP_NODE_LINK = 5, RT_OP_REG_SEND = 6, RT_OP_GROUP_LEADER = 7, RT_OP_EXIT2 = 8,
    RT_OP_SEND_TT = 12, RT_OP_EXIT_TT = 13, RT_OP_REG_SEND_TT = 16, RT_OP_EXIT2_TT = 18,
    RT_OP_MONITOR_P = 19, RT_OP_DEMONITOR_P = 20, RT_OP_MONITOR_P_EXIT = 21,
    RT_OP_SEND_SENDER = 22, RT_OP_SEND_SENDER_TT = 23,
    RT_OP_PAYLOAD_EXIT = 24, RT_OP_PAYLOAD_EXIT_TT = 25,
    RT_OP_PAYLOAD_EXIT2 = 26, RT_OP_PAYLOAD_EXIT2_TT = 27,
    RT_OP_PAYLOAD_MONITOR_P_EXIT = 28,
    RT_OP_SPAWN_REQUEST = 29, RT_OP_SPAWN_REQUEST_TT = 30,
    RT_OP_SPAWN_REPLY = 31, RT_OP_SPAWN_REPLY_TT = 32,
    RT_OP_ALIAS_SEND = 33, RT_OP_ALIAS_SEND_TT = 34,
    RT_OP_UNLINK_ID = 35, RT_OP_UNLINK_ID_ACK = 36, RT_OP_ALTACT_SIG_SEND = 37
};

/* ALTACT_SIG_SEND flags */
#define RT_ALTACT_PRIO 1u
#define RT_ALTACT_TOKEN 2u
#define RT_ALTACT_ALIAS 4u
#define RT_ALTACT_NAME 8u
#define RT_ALTACT_EXIT 16u

/* Between routers: with this bit, SEND_SENDER, REG_SEND and ALIAS_SEND are followed by one payload
 * or more, which are as many messages of the same sender to the same receiver. Between two payloads
 * may stand one turn to another head, for all that follows. It begins with a byte that no term begins
 * with: the number of a place, for the head that was last put into it within this packet; or that
 * number plus RT_PACK_NEW, and the head itself (131 68 0 and such a control tuple), which is
 * put there. What a packet may ask for is bounded: it has at most so many bytes, and each payload
 * but the first has some bytes at least. */
#define RT_OP_PACK 0x80u
#define RT_PACK_PLACES 32u
#define RT_PACK_NEW RT_PACK_PLACES
#define RT_PACK_BYTES_MAX (16u * 1024u)
#define RT_PACK_PAYLOAD_MIN 16u
#define RT_CONTROL_OP_AT 3u       /* where the opcode stands in what the writers of sends write */

/* One parsed control message. Slices hold whole external terms as they stood:
 * pids, references, an atom (a registered name), or any term (reason). Unused
 * slices are empty. */
typedef struct rt_control {
    enum rt_control_op op;
    bool payload;         /* this opcode is followed by a payload term, */
    bool pack;            /* or by several: see RT_OP_PACK */
    rt_slice from;        /* pid; empty where the opcode has none. MONITOR_P_EXIT: pid or name */
    rt_slice to;          /* pid, alias reference, or atom */
    bool to_name;         /* `to` is an atom */
    bool to_alias;        /* `to` is a reference */
    rt_slice ref;         /* monitors, spawn: the reference */
    rt_slice reason;      /* exits without payload; SPAWN_REPLY: the result term */
    uint64_t id;          /* unlink id; spawn-reply flags; altact flags */
    rt_slice group_leader;/* SPAWN_REQUEST */
    rt_slice mfa;         /* SPAWN_REQUEST: {Module, Function, Arity} */
    rt_slice options;     /* SPAWN_REQUEST: list */
} rt_control;

/* Parses the control tuple at p; returns its length. */
int64_t rt_control_parse(const uint8_t *p, size_t n, rt_control *out);

/* Writers append the control tuple (no version byte). Identifiers are passed
 * as their external bytes. RT_OK or RT_ENOMEM. */
int rt_control_send(rt_buf *b, rt_slice to);                              /* {2,'',To} */
int rt_control_send_sender(rt_buf *b, rt_slice from, rt_slice to);        /* {22,From,To} */
int rt_control_reg_send(rt_buf *b, rt_slice from, rt_slice name_utf8);    /* {6,From,'',Name} */
int rt_control_alias_send(rt_buf *b, rt_slice from, rt_slice alias);      /* {33,From,Alias} */
int rt_control_link(rt_buf *b, rt_slice from, rt_slice to);               /* {1,..} */
int rt_control_unlink_id(rt_buf *b, uint64_t id, rt_slice from, rt_slice to);
int rt_control_unlink_id_ack(rt_buf *b, uint64_t id, rt_slice from, rt_slice to);
int rt_control_unlink(rt_buf *b, rt_slice from, rt_slice to);             /* {4,..} */
int rt_control_exit(rt_buf *b, rt_slice from, rt_slice to, rt_slice reason);      /* {3,..} */
int rt_control_exit2(rt_buf *b, rt_slice from, rt_slice to, rt_slice reason);     /* {8,..} */
int rt_control_payload_exit(rt_buf *b, rt_slice from, rt_slice to);       /* {24,..} */
int rt_control_payload_exit2(rt_buf *b, rt_slice from, rt_slice to);      /* {26,..} */
/* target: a pid's bytes, or an atom's bytes as a term */
int rt_control_monitor(rt_buf *b, rt_slice from, rt_slice target, rt_slice ref);
int rt_control_demonitor(rt_buf *b, rt_slice from, rt_slice target, rt_slice ref);
/* {21,FromTarget,ToWatcher,Ref,Reason} and {28,FromTarget,ToWatcher,Ref} */
int rt_control_monitor_exit(rt_buf *b, rt_slice target, rt_slice watcher, rt_slice ref,
                            rt_slice reason);
int rt_control_payload_monitor_exit(rt_buf *b, rt_slice target, rt_slice watcher, rt_slice ref);
int rt_control_group_leader(rt_buf *b, rt_slice from, rt_slice to);
/* {29,ReqId,From,GroupLeader,{M,F,Arity},OptList}; options is an external list term */
int rt_control_spawn_request(rt_buf *b, rt_slice ref, rt_slice from, rt_slice leader,
                             rt_slice module_utf8, rt_slice function_utf8, uint32_t arity,
                             rt_slice options);
int rt_control_spawn_reply(rt_buf *b, rt_slice ref, rt_slice to, uint32_t flags, rt_slice result);

#endif
