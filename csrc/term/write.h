/* Purpose: append external terms to a buffer. All functions return RT_OK or
 * RT_ENOMEM (rt_put_atom also RT_EINVAL for over 255 characters). */
#ifndef RT_TERM_WRITE_H
#define RT_TERM_WRITE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/cursor.h"
#include "term/tags.h"

int rt_put_version(rt_buf *b);                         /* 131 */
int rt_put_atom(rt_buf *b, rt_slice utf8);
int rt_put_atom_str(rt_buf *b, const char *ascii);
int rt_put_i64(rt_buf *b, int64_t v);                  /* the shortest form Erlang uses */
int rt_put_u64(rt_buf *b, uint64_t v);
int rt_put_tuple(rt_buf *b, uint32_t arity);           /* header only */
int rt_put_list(rt_buf *b, uint32_t count);            /* header only; the tail follows */
int rt_put_nil(rt_buf *b);
int rt_put_map(rt_buf *b, uint32_t pairs);             /* header only */
int rt_put_binary(rt_buf *b, rt_slice bytes);
int rt_put_f64(rt_buf *b, double v);                   /* RT_EINVAL for NaN and infinity */

#endif
