/* Purpose: the old FLOAT term, whose number is 31 bytes of text.
 * Threads: any. Errors: RT_EBAD for text Erlang refuses: anything but
 * [+-]digits.digits[e[+-]digits] ended by a zero byte, or what is too large
 * for a double. The locale plays no part. */
#ifndef RT_TERM_TEXT_FLOAT_H
#define RT_TERM_TEXT_FLOAT_H

#include "base/base.h"

enum { RT_TEXT_FLOAT_BYTES = 31 };

int rt_text_float_check(const uint8_t text[RT_TEXT_FLOAT_BYTES]);

#endif
