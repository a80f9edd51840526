/* SPDX-License-Identifier: Apache-2.0
 * Private to user/http: the character classes of RFC 9110 and 9112, shared by heads and trailers.
 */
#ifndef KVS_HTTP_HTTP_INT_H
#define KVS_HTTP_HTTP_INT_H

#include <stdbool.h>

enum {
	HTTP_C_TOKEN = 1,  /* tchar: methods, field names */
	HTTP_C_VALUE = 2,  /* field values: visible, space, tab, obs-text */
	HTTP_C_TARGET = 4, /* request targets: visible ASCII but "#" */
	HTTP_C_HOST = 8,   /* uri-host and port */
};

extern const unsigned char http_class[256];

static inline bool http_is(char c, unsigned class)
{
	return http_class[(unsigned char)c] & class;
}

#endif
