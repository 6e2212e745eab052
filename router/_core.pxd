# cython: language_level=3
"""What csrc/router.h offers, as far as the module uses it."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "router.h" nogil:
    ctypedef struct rt_slice:
        const uint8_t *p
        size_t n
    rt_slice rt_slice_of(const void *p, size_t n)

    ctypedef struct rt_buf:
        uint8_t *p
        size_t n
        size_t cap
    void rt_buf_fini(rt_buf *b)
    int rt_buf_reserve(rt_buf *b, size_t extra)
    int rt_buf_put(rt_buf *b, const void *p, size_t n)

    const char *rt_err_text(int code)
    uint64_t rt_now()
    void rt_free(void *p)

    enum:
        RT_ID_SLOT_MAX
        RT_ATOM_CHARS_MAX

    enum:
        RT_OK
        RT_AGAIN
        RT_ENOMEM
        RT_EBAD
        RT_ELIMIT
        RT_EINVAL
        RT_EFULL
        RT_ENOENT
        RT_EEXIST
        RT_ECLOSED
        RT_ENOTCONN
        RT_ETIME
        RT_EAUTH
        RT_EFLAGS
        RT_ENOTALLOWED
        RT_EALIVE
        RT_ENOK
        RT_ESYS
        RT_EBUSY
        RT_EFORK
        RT_ESIZE

    ctypedef struct rt_limits:
        uint32_t frame_bytes_max
        uint32_t message_bytes_max
        uint32_t term_depth_max
        uint32_t fragments_in_flight_max
        uint32_t peers_max
        uint32_t handshakes_max
        uint32_t handshake_step_ms
        uint32_t connect_ms
        uint32_t queue_bytes_soft
        uint32_t queue_bytes_max
        uint32_t processes_max
        uint32_t spill_bytes_max
        uint32_t signals_max
        uint32_t pause_ms_max
        uint32_t inflate_ratio_max
        uint32_t names_max
        uint32_t multicast_bytes_max

    ctypedef struct rt_address:
        pass
    int rt_address_parse(const char *host, uint16_t port, rt_address *out)

    ctypedef uint64_t rt_pid
    enum:
        RT_PID_BYTES_MAX
        RT_REF_BYTES_MAX
        RT_ATOM_BYTES_MAX

    ctypedef struct rt_notifier:
        pass
    ctypedef struct rt_ready:
        pass
    int rt_notifier_new(rt_notifier **out)
    void rt_notifier_rele(rt_notifier *n)
    int rt_notifier_fd(const rt_notifier *n)
    void rt_notifier_poke(rt_notifier *n)
    rt_ready *rt_notifier_next(rt_notifier *n)
    void rt_notifier_hush(rt_notifier *n)
    bint rt_notifier_rest(rt_notifier *n)
    bint rt_notifier_rung(const rt_notifier *n)
    void rt_notifier_after_fork(rt_notifier *n)

    ctypedef struct rt_message:
        rt_pid target
        uint32_t n
        uint32_t signal
    uint8_t *rt_message_data(rt_message *m)
    void rt_message_free(rt_message *m)

    enum rt_overflow:
        RT_OVERFLOW_NONE
        RT_OVERFLOW_DROP
        RT_OVERFLOW_CLOSE
        RT_OVERFLOW_PAUSE
    ctypedef struct rt_mailbox:
        pass
    rt_mailbox *RT_MAILBOX_OF_READY(rt_ready *r)
    bint rt_mailbox_arm(rt_mailbox *mb)
    bint rt_mailbox_any(const rt_mailbox *mb)
    void rt_mailbox_bind(rt_mailbox *mb, rt_notifier *n)
    void rt_mailbox_limit(rt_mailbox *mb, uint32_t messages, uint64_t bytes, rt_overflow overflow)
    uint32_t rt_mailbox_count(const rt_mailbox *mb)
    uint64_t rt_mailbox_waiting_bytes(const rt_mailbox *mb)
    uint32_t rt_mailbox_dropped(const rt_mailbox *mb)
    bint rt_mailbox_closed(const rt_mailbox *mb)

    ctypedef struct rt_process:
        rt_mailbox mailbox
        rt_pid self
        void *user
    ctypedef struct rt_registry:
        pass
    int rt_process_new(rt_registry *r, rt_process **out)
    rt_process *rt_registry_lookup(rt_registry *r, rt_pid pid)
    rt_slice rt_process_reason(rt_process *p)
    bint rt_process_alive(const rt_process *p)
    void rt_process_release(rt_registry *r, rt_process *p)
    rt_message *rt_process_pop(rt_registry *r, rt_process *p)
    int rt_registry_register(rt_registry *r, rt_slice name, rt_pid pid)
    int rt_registry_unregister(rt_registry *r, rt_slice name)
    rt_pid rt_registry_whereis(rt_registry *r, rt_slice name)
    uint32_t rt_registry_count(const rt_registry *r)
    rt_registry *rt_registry_new(uint32_t processes_max, uint32_t names_max)
    void rt_registry_free(rt_registry *r)
    int rt_process_exit(rt_registry *r, rt_pid pid, rt_slice reason)
    void rt_registry_lookup_many(rt_registry *r, const rt_pid *pids, size_t n,
                                 int64_t *slots) nogil
    size_t rt_registry_name_of(rt_registry *r, rt_pid pid, uint8_t *out)

    enum rt_relation_kind:
        RT_REL_LINK
        RT_REL_MONITOR_OUT
        RT_REL_MONITOR_IN
        RT_REL_ALIAS
    enum:
        RT_ALIAS_ONCE
    ctypedef struct rt_relation:
        rt_relation_kind kind
        uint32_t peer
        uint32_t flags
        rt_pid local
        rt_slice remote
        rt_slice ref
    ctypedef struct rt_relations:
        pass
    int rt_relations_add(rt_relations *r, const rt_relation *rel)
    int rt_relations_remove_ref(rt_relations *r, rt_relation_kind kind, rt_slice ref,
                                rt_relation **out)
    rt_pid rt_relations_find_ref(rt_relations *r, rt_relation_kind kind, rt_slice ref)
    rt_pid rt_relations_reach(rt_relations *r, rt_slice ref)
    uint32_t rt_relations_count(const rt_relations *r)

    enum rt_peer_state:
        RT_PEER_IDLE
        RT_PEER_CONNECTING
        RT_PEER_UP
    ctypedef struct rt_peer:
        uint32_t number
        rt_slice name
        rt_slice atom
    ctypedef struct rt_peers:
        pass
    int rt_peers_get(rt_peers *t, rt_slice name, rt_peer **out)
    uint32_t rt_peers_count(rt_peers *t)
    rt_peer *rt_peers_at(rt_peers *t, uint32_t number)
    ctypedef struct rt_pool:
        pass
    rt_peer *rt_peers_find(rt_peers *t, rt_slice name)
    bint rt_peer_above(rt_peer *p, size_t bytes)
    rt_pool *rt_peers_pool(rt_peers *t)
    void *rt_pool_take(rt_pool *p, size_t least, size_t *cap)
    void rt_pool_give(rt_pool *p, void *piece, size_t cap)
    rt_peer_state rt_peer_state_of(const rt_peer *p)
    bint rt_peer_lacks(rt_peer *p, uint64_t flags)
    const uint64_t RT_F_PUBLISHED

    ctypedef struct rt_route:
        rt_limits limits
        rt_slice name
        rt_slice atom
        uint32_t creation
        rt_registry *registry
        rt_relations *relations
        rt_peers *peers
    size_t rt_route_pid(const rt_route *r, rt_pid pid, uint8_t *out)
    int rt_route_local(const rt_route *r, rt_slice pid, rt_pid *out)
    int rt_route_post(rt_route *r, rt_pid to, rt_slice term)
    void rt_route_undeliverable(rt_route *r, uint64_t n)

    int rt_signal_link(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other)
    int rt_signal_unlink(rt_route *r, rt_pid self, rt_peer *peer, rt_slice other)
    int rt_signal_monitor(rt_route *r, rt_pid self, rt_peer *peer, rt_slice target,
                          rt_slice object, rt_slice ref)
    int rt_signal_demonitor(rt_route *r, rt_pid self, rt_slice ref)
    void rt_route_set_spawner(rt_route *r, rt_pid pid)
    void rt_route_set_multicaster(rt_route *r, rt_pid pid)
    enum:
        RT_MULTICAST_COPY_BYTES
    bint rt_multicast_fits(rt_slice term, uint32_t depth_max)
    int rt_multicast_put(rt_buf *b, rt_slice pids, uint32_t count)
    int rt_signal_spawned(rt_route *r, rt_pid self, rt_peer *peer, rt_slice from_, rt_slice ref,
                          uint32_t flags)
    int rt_signal_not_spawned(rt_route *r, rt_peer *peer, rt_slice from_, rt_slice ref,
                              const char *reason)
    int rt_signal_let_go(rt_route *r, rt_pid self, rt_slice ref, rt_slice reason)
    int rt_signal_exit(rt_route *r, rt_pid self, rt_peer *peer, rt_slice to, rt_slice reason)
    int rt_signal_terminate(rt_route *r, rt_pid self, rt_slice reason)
    int rt_signal_spawn(rt_route *r, rt_pid self, rt_peer *peer, rt_slice ref, rt_slice module,
                        rt_slice function, uint32_t arity, rt_slice args, rt_slice options)

    ctypedef struct rt_lead:
        size_t n
        uint64_t number
    const rt_lead RT_LEAD_NONE
    ctypedef struct rt_shared:
        pass
    ctypedef struct rt_body:
        size_t at
        size_t n
        const uint8_t *p
        rt_shared *shared
    void rt_shared_rele(rt_shared *s)
    int rt_outbound_begin(rt_buf *b)
    enum:
        RT_FRAGMENT_BYTES
    int rt_outbound_end(rt_buf *b, size_t start, const rt_limits *limits)
    int rt_control_send_sender(rt_buf *b, rt_slice sender, rt_slice to)
    int rt_control_reg_send(rt_buf *b, rt_slice sender, rt_slice name_utf8)
    int rt_control_alias_send(rt_buf *b, rt_slice sender, rt_slice alias)

    ctypedef struct rt_event:
        int kind
        int code
        int sys
        uint64_t lost
        uint64_t pid
        uint32_t name_n
        uint8_t *name
        char *text
    ctypedef struct rt_events:
        pass
    bint rt_events_any(rt_events *q)
    uint64_t rt_events_dropped(rt_events *q)
    rt_event *rt_events_take(rt_events *q)
    int rt_events_listen(rt_events *q, rt_notifier *n)
    void rt_events_ignore(rt_events *q, rt_notifier *n)

    enum:
        RT_EVENT_UP
        RT_EVENT_DOWN
        RT_EVENT_FAILED
        RT_EVENT_REFUSED
        RT_EVENT_DRAINED
        RT_EVENT_REGISTERED
        RT_EVENT_UNREGISTERED
        RT_EVENT_OVERFLOW
        RT_EVENT_ACCEPT
        RT_ENGINE_AUTO
        RT_ENGINE_THREAD
        RT_ENGINE_INLINE
        RT_POLLER_EPOLL
        RT_POLLER_URING
        RT_EPMD_AUTO
        RT_EPMD_NONE
        RT_SEND_DIRECT
        RT_SEND_WAKE
        RT_COOKIE_BYTES_MAX
        RT_NODE_THREADS_MAX
        RT_BUSY_WAIT_NS_MAX

    ctypedef struct rt_node_config:
        rt_slice name
        rt_slice cookie
        bint hidden
        bint relay
        int engine
        uint32_t threads
        uint32_t busy_wait_ns
        int poller
        int epmd
        uint16_t epmd_port
        bint epmd_any
        uint32_t net_ticktime_ms
        bint listening
        rt_address listen
        rt_limits limits
    ctypedef struct rt_peer_stats:
        uint64_t messages_in, messages_out, bytes_in, bytes_out, queued_bytes
        uint64_t dropped_in, dropped_out, refused, connects, failures
        double age
        double idle
        double round_trip
        uint32_t state
        uint32_t number
    ctypedef struct rt_node:
        pass
    int rt_poller_usable(int kind)
    int rt_node_new(const rt_node_config *config, rt_node **out)
    int rt_node_start(rt_node *n)
    void rt_node_stop(rt_node *n)
    void rt_node_free(rt_node *n)
    void rt_node_after_fork(rt_node *n)
    rt_route *rt_node_route(rt_node *n)
    rt_events *rt_node_events(rt_node *n)
    uint16_t rt_node_port(const rt_node *n)
    int rt_node_fd(const rt_node *n)
    int rt_node_drive(rt_node *n, bint told)
    void rt_node_beat(rt_node *n)
    bint rt_node_expects(rt_node *n)
    int rt_node_busy_wait(rt_node *n, const rt_notifier *notifier, uint64_t ns)
    void rt_node_give_up(rt_node *n)
    int rt_node_wait(rt_node *n, rt_notifier *notifier, uint64_t timeout_ns)
    void rt_node_promise(rt_node *n, int more)
    void rt_node_flush(rt_node *n)
    int rt_node_hold(rt_node *n, rt_peer *p)
    int rt_node_dial(rt_node *n, rt_peer *p, const char *host, uint16_t port)
    int rt_node_abandon(rt_node *n, rt_peer *p, const char *text)
    int rt_node_disconnect(rt_node *n, rt_peer *p)
    int rt_node_set_cookie(rt_node *n, rt_peer *p, rt_slice cookie)
    int rt_node_send(rt_node *n, rt_peer *p, rt_slice frames, rt_lead lead, unsigned how,
                     rt_buf *own)
    int rt_node_send_body(rt_node *n, rt_peer *p, rt_slice frame, const rt_body *body,
                          unsigned how)
    int rt_node_join(rt_node *n, rt_peer *p, rt_lead lead, rt_slice payload)
    uint64_t rt_node_turns(const rt_node *n)
    void rt_node_consumed(rt_node *n, rt_process *p)
    bint rt_node_box_full(const rt_process *p)
    int rt_node_watch(rt_node *n, rt_pid pid, bint on)
    uint32_t rt_node_stats(rt_node *n, rt_peer_stats *rows, uint32_t max)
    bint rt_node_trap_exit(rt_process *p)
    void rt_node_set_trap_exit(rt_process *p, bint on)

    rt_limits rt_limits_default()

cdef extern from "router.h":
    int rt_py_init(object module) except -1
    int rt_py_is_codec(object obj)
    int rt_py_encode(object codec, object term, rt_buf *out) except -1
    ctypedef struct rt_py_apart:
        PyObject *bytes
        size_t at
    int rt_py_encode_apart(object codec, object term, rt_buf *out, rt_py_apart *apart) except -1
    int rt_py_apart_insert(rt_buf *b, size_t at, object bytes_) except -1
    rt_shared *rt_py_apart_share(object bytes_) except NULL
    void rt_py_let_go()
    void rt_py_inherit_anext(void *type)
    int rt_py_own_method(object type, object name) except -1
    void rt_py_set_send(void *type, int (*send)(PyObject *, PyObject *, PyObject **) except -1)
    PyObject *rt_py_decode_or_null "rt_py_decode"(object codec, const uint8_t *p, size_t n,
                                                 size_t *used)
    object rt_py_decode(object codec, const uint8_t *p, size_t n, size_t *used)
    int rt_py_decode_append(object codec, const uint8_t *p, size_t n, list terms)
    object rt_py_pid(object node_atom, uint32_t id, uint32_t serial, uint32_t creation)
    object rt_py_ref(object node_atom, uint32_t creation, const uint32_t *word, uint32_t words)
    object rt_py_atom(const uint8_t *utf8, size_t n)
    bint rt_py_is_pid(object obj)
    bint rt_py_is_ref(object obj)
    bint rt_py_is_atom(object obj)
    const uint8_t *rt_py_ident_bytes(object ident, size_t *n) except NULL
    rt_slice rt_py_atom_name(object atom)

cdef extern from "router.h":
    # With the GIL, which their callbacks need.
    void rt_registry_each(rt_registry *r, void (*f)(void *arg, rt_process *p) noexcept, void *arg)
    void rt_registry_each_name(rt_registry *r,
                               void (*f)(void *arg, rt_slice name, rt_pid pid) noexcept, void *arg)
