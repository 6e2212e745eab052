#include "base/base.h"
#include "check.h"
#include "proc/message.h"

static rt_message *add(rt_chain *c, rt_pid target, uint32_t n, uint8_t fill) {
    rt_message *m = rt_chain_add(c, target, n);
    if (CHECK(m != NULL)) memset(rt_message_data(m), fill, n);
    return m;
}

static void test_add(void) {
    static const uint32_t size[] = {0, 1, 7, 8, 9, 100, 1000, 5000, 100000, 3};
    rt_chain c = {0};
    rt_message *m;
    uint64_t bytes = 0;
    uint32_t n = sizeof size / sizeof size[0];
    for (uint32_t i = 0; i < n; i++) {
        m = add(&c, i + 1, size[i], (uint8_t)i);
        CHECK_INT((uintptr_t)m % 8, 0);
        CHECK_INT(m->n, size[i]);
        bytes += size[i];
        CHECK(c.last == m);
        CHECK_INT(c.count, i + 1);
        CHECK_INT(c.bytes, bytes);
    }
    m = c.last;
    for (uint32_t i = n; i-- > 0; m = (rt_message *)m->link.next) {
        CHECK_INT(m->target, i + 1);
        for (uint32_t k = 0; k < size[i]; k++)
            if (rt_message_data(m)[k] != (uint8_t)i) CHECK(!"content changed");
        if (i == 0) CHECK(c.first == m && m->link.next == NULL);
    }
    rt_chain_free(&c);
    CHECK(!c.first && !c.last && c.count == 0 && c.bytes == 0);
    rt_chain_free(&c);
    rt_message_free(NULL);
}

/* A chain holds at most twice its messages, and one message just itself. */
static void test_memory(void) {
    rt_chain c = {0};
    size_t held, content;
    const rt_block *b = NULL;
    add(&c, 1, 10, 0);
    CHECK(c.last->block->cap <= sizeof(rt_message) + 16);
    held = c.last->block->cap;
    content = held;
    b = c.last->block;
    for (int i = 0; i < 2000; i++) {
        rt_message *m = add(&c, 1, 20, 1);
        content += sizeof *m + 24;
        if (m->block != b) held += m->block->cap;
        b = m->block;
        CHECK(held <= 2 * content + RT_BLOCK_BYTES);
        CHECK(b->cap + sizeof *b <= RT_BLOCK_BYTES);
    }
    CHECK(held <= content * 5 / 4);
    CHECK(rt_alloc_live() < 40);      /* many messages share a block */
    rt_chain_free(&c);
}

static void test_undo(void) {
    rt_chain c = {0};
    rt_message *m;
    size_t used;
    add(&c, 1, 10, 1);
    rt_chain_undo(&c);                /* the only one: its block goes with it */
    CHECK(!c.first && !c.last && c.count == 0 && c.bytes == 0);
    CHECK_INT(rt_alloc_live(), 0);
    add(&c, 1, 1000, 1);
    add(&c, 1, 10, 1);
    m = add(&c, 1, 10, 2);
    used = m->block->used;
    rt_chain_undo(&c);
    CHECK_INT(c.count, 2);
    CHECK_INT(c.bytes, 1010);
    CHECK(add(&c, 1, 10, 3) == m);    /* the room is used again */
    CHECK_INT(m->block->used, used);
    rt_chain_cut(&c, 5);
    CHECK_INT(c.count, 3);
    rt_chain_cut(&c, 1);
    CHECK_INT(c.count, 1);
    CHECK_INT(c.bytes, 1000);
    CHECK(c.first == c.last);
    rt_chain_free(&c);
}

static void test_any_order_of_freeing(void) {
    rt_chain c = {0};
    rt_message *m[64];
    for (int i = 0; i < 64; i++) m[i] = add(&c, 1, (uint32_t)i * 7, (uint8_t)i);
    for (int i = 0; i < 64; i++) rt_message_free(m[(i * 37) % 64]);
}

static void test_no_memory(void) {
    rt_chain c = {0};
    rt_alloc_fail_after(0);
    CHECK(rt_chain_add(&c, 1, 10) == NULL);
    CHECK(!c.first && !c.last && c.count == 0);
    rt_alloc_fail_after(-1);
    add(&c, 1, 10, 1);
    rt_alloc_fail_after(0);
    CHECK(rt_chain_add(&c, 1, 100000) == NULL);
    CHECK_INT(c.count, 1);
    CHECK_INT(c.bytes, 10);
    CHECK(c.first == c.last);
    rt_alloc_fail_after(-1);
    add(&c, 1, 100000, 1);
    CHECK_INT(c.count, 2);
    rt_chain_free(&c);
}

TESTS(test_add, test_memory, test_undo, test_any_order_of_freeing, test_no_memory)
