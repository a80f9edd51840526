/* SPDX-License-Identifier: Apache-2.0
 * Private to model/: Unicode as the tokenizers library sees it, and as Python's str does, which templates are written
 * for. unicode_data.c and unicode_python.c are asked of these, character by character (tools/unicode/make_tables.py):
 * the library's regular expressions and its NFC have tables of different ages, and neither has Python's or this
 * system's.
 */
#ifndef KVS_MODEL_UNICODE_H
#define KVS_MODEL_UNICODE_H

#include <stdint.h>

#include "base/buf.h"

/* General categories as patterns name them; CLASS_UPPER is Lu Lt Lm Lo M, CLASS_LOWER is Ll Lm Lo M. */
enum {
	CLASS_L = 1,
	CLASS_N = 2,
	CLASS_M = 4,
	CLASS_P = 8,
	CLASS_S = 16,
	CLASS_SPACE = 32,
	CLASS_UPPER = 64,
	CLASS_LOWER = 128,
};

struct decomposition {
	uint32_t c, a, b; /* c is a + b, or a alone */
	uint32_t composes;
};

/* unicode_data.c. Runs are (code point << 8 | value) wherever the value changes. */
extern const uint32_t unicode_class_runs[], unicode_combining_runs[];
extern const struct decomposition unicode_decompositions[];
extern const unsigned unicode_class_runs_n, unicode_combining_runs_n, unicode_decompositions_n;

/* unicode_python.c. Cases are distances to a character; from PYTHON_SEVERAL on places in python_several, where a count
 * and so many characters stand. Runs are (first character << 11 | record), ascending from 0. */
#define PYTHON_SEVERAL (1 << 24)
struct python_record {
	uint16_t flags;
	int32_t to[4]; /* upper, lower, title, folded */
};
extern const struct python_record python_records[];
extern const uint32_t python_runs[], python_several[];
extern const unsigned python_records_n, python_runs_n, python_several_n;

#define UNICODE_FLAT 0x40000 /* behind it there are few classes */
extern uint8_t unicode_class_of[UNICODE_FLAT];

void unicode_init(void); /* before any other call; any number of times, any thread */

unsigned unicode_class_far(uint32_t c);
static inline unsigned unicode_class(uint32_t c)
{
	return c < UNICODE_FLAT ? unicode_class_of[c] : unicode_class_far(c);
}

/* One character of valid UTF-8. */
static inline uint32_t utf8_char(const unsigned char *p, unsigned *ret_len)
{
	if (p[0] < 0x80) {
		*ret_len = 1;
		return p[0];
	}
	if (p[0] < 0xe0) {
		*ret_len = 2;
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	}
	if (p[0] < 0xf0) {
		*ret_len = 3;
		return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	}
	*ret_len = 4;
	return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

/* How many bytes from the start are valid UTF-8 in whole characters. *ret_cut: what follows is the beginning of a
 * character that the text's end has cut off. */
size_t utf8_valid(const char *p, size_t n, bool *ret_cut);

bool nfc_may_change(const char *p, size_t n); /* any bytes, quick: false is sure */
/* Would NFC leave it alone? Valid UTF-8. */
bool nfc_inert(const char *p, size_t n);
int nfc_put(struct buf *out, const char *p, size_t n); /* 0 or -ENOMEM */

#endif
