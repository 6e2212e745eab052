#include "term/text_float.h"

/* The first digits of the smallest number that rounds to infinity, which has
 * 309: 2^1024 - 2^970. A text holds fewer digits, so comparing with these
 * decides. */
static const char OVERFLOW_DIGITS[] = "1797693134862315807937289714053";
enum { OVERFLOW_EXPONENT = 308, EXPONENT_CAP = 100000 };

typedef struct number {
    char digit[RT_TEXT_FLOAT_BYTES + 1]; /* from the first that is not zero, '0'-padded */
    int digits;
    int exponent;                        /* of the first digit */
} number;

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static void keep_digit(number *v, uint8_t c, bool fraction) {
    if (v->digits == 0 && c == '0') {
        if (fraction) v->exponent--;
        return;
    }
    v->digit[v->digits++] = (char)c;
    if (!fraction && v->digits > 1) v->exponent++;
}

/* Reads a run of digits from position i and returns the position after it. */
static int read_digits(number *v, const uint8_t *text, int i, bool fraction) {
    for (; i < RT_TEXT_FLOAT_BYTES && is_digit(text[i]); i++) keep_digit(v, text[i], fraction);
    return i;
}

static int read_exponent(const uint8_t *text, int i, int *out) {
    bool negative = false;
    int start, value = 0;
    if (i < RT_TEXT_FLOAT_BYTES && (text[i] == '+' || text[i] == '-')) {
        negative = text[i] == '-';
        i++;
    }
    for (start = i; i < RT_TEXT_FLOAT_BYTES && is_digit(text[i]); i++) {
        if (value < EXPONENT_CAP) value = value * 10 + (text[i] - '0');
    }
    if (i == start) return RT_EBAD;
    *out = negative ? -value : value;
    return i;
}

static bool overflows(const number *v) {
    if (v->digits == 0 || v->exponent < OVERFLOW_EXPONENT) return false;
    if (v->exponent > OVERFLOW_EXPONENT) return true;
    return memcmp(v->digit, OVERFLOW_DIGITS, sizeof OVERFLOW_DIGITS - 1) > 0;
}

int rt_text_float_check(const uint8_t text[RT_TEXT_FLOAT_BYTES]) {
    number v = {.digits = 0, .exponent = 0};
    int i = 0, start, exponent = 0;
    memset(v.digit, '0', sizeof v.digit);
    if (text[0] == '+' || text[0] == '-') i++;
    start = i;
    i = read_digits(&v, text, i, false);
    if (i == start || i >= RT_TEXT_FLOAT_BYTES) return RT_EBAD;
    if (text[i] != '.' && text[i] != ',') return RT_EBAD;
    start = ++i;
    if (v.digits == 0) v.exponent = -1; /* nothing yet: the fraction counts down from here */
    i = read_digits(&v, text, i, true);
    if (i == start || i >= RT_TEXT_FLOAT_BYTES) return RT_EBAD;
    if (text[i] == 'e' || text[i] == 'E') {
        i = read_exponent(text, i + 1, &exponent);
        if (i < 0 || i >= RT_TEXT_FLOAT_BYTES) return RT_EBAD;
    }
    if (text[i] != 0) return RT_EBAD;
    v.exponent += exponent;
    return overflows(&v) ? RT_EBAD : RT_OK;
}
