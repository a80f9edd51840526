/* SPDX-License-Identifier: Apache-2.0
 * A bounded decoder of request bodies with a Content-Encoding (RFC 9110, 8.4): gzip, x-gzip, deflate; zstd where its
 * library is there. It is there to look into a body; what goes on to the pod is the body as it came.
 *
 * Threads: none; one owner at a time.
 */
#ifndef KVS_HTTP_INFLATE_H
#define KVS_HTTP_INFLATE_H

#include "base/buf.h"
#include "base/str.h"

struct http_inflate;

#define HTTP_INFLATE_MEMORY (48u << 10) /* about what one holds besides its output (zstd: up to its window more) */

/* <coding>: the header's value. NULL and errno: ENOTSUP for another coding, or several; ENOMEM. */
struct http_inflate *http_inflate_new(struct str coding);
void http_inflate_free(struct http_inflate *f);

/* Append what <p> unpacks to. 1: that was the last of it; 0: more is to come; -EBADMSG: broken, or bytes behind the
 * end; -E2BIG: it would be more than <max> bytes in <out>; -ENOMEM. After an error nothing more may be fed. */
int http_inflate_feed(struct http_inflate *f, const char *p, size_t n, struct buf *out, size_t max);

#endif
