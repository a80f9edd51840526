/* SPDX-License-Identifier: Apache-2.0
 * Private to model/: Unicode as the tokenizers library sees it. unicode_data.c is asked of that library, character by
 * character (tools/unicode/make_tables.py): its regular expressions and its NFC have tables of different ages, and
 * neither has this system's.
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
