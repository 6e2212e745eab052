/* Purpose: the tag bytes of the External Term Format.
 * Source: Erlang/OTP documentation, erl_ext_dist. */
#ifndef RT_TERM_TAGS_H
#define RT_TERM_TAGS_H

enum rt_tag {
    RT_TAG_VERSION = 131,
    RT_TAG_NATIVE_RECORD = 67,   /* OTP 29 */
    RT_TAG_DIST_HEADER = 68,
    RT_TAG_DIST_FRAG_FIRST = 69,
    RT_TAG_DIST_FRAG_NEXT = 70,  /* after 131 in a frame */
    RT_TAG_NEW_FLOAT = 70,       /* as a term */
    RT_TAG_BIT_BINARY = 77,
    RT_TAG_COMPRESSED = 80,
    RT_TAG_ATOM_CACHE_REF = 82,
    RT_TAG_NEW_PID = 88,
    RT_TAG_NEW_PORT = 89,
    RT_TAG_NEWER_REFERENCE = 90,
    RT_TAG_SMALL_INTEGER = 97,
    RT_TAG_INTEGER = 98,
    RT_TAG_FLOAT = 99,
    RT_TAG_ATOM_LATIN1 = 100,
    RT_TAG_REFERENCE = 101,
    RT_TAG_PORT = 102,
    RT_TAG_PID = 103,
    RT_TAG_SMALL_TUPLE = 104,
    RT_TAG_LARGE_TUPLE = 105,
    RT_TAG_NIL = 106,
    RT_TAG_STRING = 107,
    RT_TAG_LIST = 108,
    RT_TAG_BINARY = 109,
    RT_TAG_SMALL_BIG = 110,
    RT_TAG_LARGE_BIG = 111,
    RT_TAG_NEW_FUN = 112,
    RT_TAG_EXPORT = 113,
    RT_TAG_NEW_REFERENCE = 114,
    RT_TAG_SMALL_ATOM_LATIN1 = 115,
    RT_TAG_MAP = 116,
    RT_TAG_ATOM_UTF8 = 118,
    RT_TAG_SMALL_ATOM_UTF8 = 119,
    RT_TAG_V4_PORT = 120,
    RT_TAG_LOCAL = 121
};

#endif
