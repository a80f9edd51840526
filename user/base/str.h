/* SPDX-License-Identifier: Apache-2.0
 * Slices of bytes that somebody else owns, and numbers read from them.
 */
#ifndef KVS_BASE_STR_H
#define KVS_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* <n> bytes at <p>, not NUL-terminated, not owned. {NULL, 0} is absent, {p, 0} is empty. */
struct str {
	const char *p;
	size_t n;
};

#define STR(lit) ((struct str){ (lit), sizeof(lit) - 1 })

static inline struct str str_of(const char *s)
{
	return (struct str){ s, s ? strlen(s) : 0 };
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_ieq_bytes(const char *a, const char *b, size_t n);
static inline bool str_ieq(struct str a, struct str b) /* ASCII case folded */
{
	return a.n == b.n && str_ieq_bytes(a.p, b.p, a.n);
}

bool str_starts(struct str s, struct str prefix);
struct str str_trim(struct str s); /* without spaces and tabs at both ends */

/* Decimal digits only, no sign, no space. 0, -EINVAL (not a number, empty) or -ERANGE. */
int str_u64(struct str s, uint64_t *ret);

/* What fits of <s>, and a NUL behind it; cap > 0. */
void str_copy(char *out, size_t cap, const char *s);

/* A code point as UTF-8: bytes written, 4 at most. */
static inline unsigned utf8_put(char *out, unsigned c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* A copy with a NUL behind it, from malloc; NULL and ENOMEM. */
char *str_dup(struct str s);

#endif
