/* SPDX-License-Identifier: Apache-2.0
 * Private to user/http: the two loops over bulk text, chosen for the CPU when the program starts.
 */
#ifndef KVS_HTTP_JSON_SCAN_H
#define KVS_HTTP_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_scan {
	/* The first quote, backslash or byte below 0x20 in [p, end), or end. *high becomes non-zero if a byte outside
	 * ASCII lies before it; it is never cleared. */
	const char *(*text)(const char *p, const char *end, uint64_t *high);
	bool (*utf8_valid)(const char *p, size_t n);
};

extern struct json_scan json_scan;

/* Choose "avx2", "sse2" or "plain": for tests and measurements, before there are threads. 0 or -ENOTSUP. */
int json_scan_use(const char *name);

#endif
