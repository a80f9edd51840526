/* SPDX-License-Identifier: Apache-2.0
 * Private to user/http: the two loops over bulk text, chosen for the CPU when the program starts, and what an escape
 * is.
 */
#ifndef KVS_HTTP_JSON_SCAN_H
#define KVS_HTTP_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct json_scan {
	/* The first quote, backslash or byte below 0x20 in [p, end), or end. *high becomes non-zero if a byte outside
	 * ASCII lies before it; it is never cleared. */
	const char *(*text)(const char *p, const char *end, uint64_t *high);
	/* The same, but what is passed over is copied to *to, which moves on, and so is the meaning of escapes of two
	 * bytes (and of others that stand alone, if that is quicker): stops at a quote, a byte below 0x20, any other
	 * backslash (the last byte is one), or <end>. Writes up to JSON_SLACK bytes more than it has copied. */
	const char *(*copy)(const char *p, const char *end, char **to, uint64_t *high);
	bool (*utf8_valid)(const char *p, size_t n);
};

#define JSON_SLACK 64

extern struct json_scan json_scan;

/* Choose "avx512", "avx2", "sse2" or "plain": for tests and measurements, before there are threads. 0 or -ENOTSUP. */
int json_scan_use(const char *name);

extern const uint8_t json_hex_digit[256]; /* one more than the digit's value, so that 0 is no digit */
extern const char json_escape[256];	  /* what the character behind a backslash stands for; 0: it may not be there */

/* Of four hex digits, known to be some. */
static inline unsigned hex4(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	return (json_hex_digit[p[0]] - 1U) << 12 | (json_hex_digit[p[1]] - 1U) << 8 | (json_hex_digit[p[2]] - 1U) << 4 |
	       (json_hex_digit[p[3]] - 1U);
}

/* The length of the escape at <p>; 0 if it is cut off, -1 if it is none. */
static inline int escape_len(const char *p, const char *end)
{
	if (end - p < 2)
		return 0;
	if (p[1] != 'u')
		return json_escape[(unsigned char)p[1]] ? 2 : -1;
	for (int i = 2; i < 6; i++) {
		if (p + i == end)
			return 0;
		if (!json_hex_digit[(unsigned char)p[i]])
			return -1;
	}
	return 6;
}

enum unescape { UNESCAPE_STOP, UNESCAPE_QUOTE, UNESCAPE_CUT, UNESCAPE_BAD, UNESCAPE_LONE };

/* Copy string text from *p to *to without its escapes, up to <stop> or a few bytes beyond (to the end of an escape).
 * STOP: all of it; QUOTE: *p is the closing quote; CUT: what begins at *p ends behind <end>; BAD: may not stand in a
 * string; LONE: at *p is a surrogate without its other half, an escape of six bytes. <to> has room for as many bytes as
 * there are, and JSON_SLACK. */
enum unescape json_unescape_run(const char **p, const char *stop, const char *end, char **to, uint64_t *high);

#endif
