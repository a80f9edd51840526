/* SPDX-License-Identifier: Apache-2.0
 * Private to user/http (and its fuzzers): the character classes of RFC 9110 and 9112, shared by heads and trailers; the
 * second reader of heads.
 */
#ifndef KVS_HTTP_HTTP_INT_H
#define KVS_HTTP_HTTP_INT_H

#include "http/http.h"

enum {
	HTTP_C_TOKEN = 1,  /* tchar: methods, field names */
	HTTP_C_VALUE = 2,  /* field values: visible, space, tab, obs-text */
	HTTP_C_TARGET = 4, /* request targets: visible ASCII but "#" */
	HTTP_C_HOST = 8,   /* uri-host and port */
	HTTP_C_PLAIN = 16, /* visible ASCII and space */
};

extern const unsigned char http_class[256];

static inline bool http_is(char c, unsigned class)
{
	return http_class[(unsigned char)c] & class;
}

/* Does llhttp read <head> as <h> says? 0, or -EBADMSG and *why. */
int http_cross_examine(struct str head, bool request, const struct http_head *h, const char **why);

#endif
