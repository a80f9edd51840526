/* SPDX-License-Identifier: Apache-2.0
 * HTTP/1.1 heads (strict, and as llhttp reads them) and body framing (RFC 9112). Pure and incremental: no I/O, no
 * allocation.
 *
 * A head is parsed in one go from contiguous bytes: http_head_end finds its end, http_parse_* reads it. All spans point
 * into the caller's bytes. What could be read in two ways is refused, never repaired: both Content-Length and
 * Transfer-Encoding, unequal or malformed lengths, bare CR or LF, NUL, obs-fold, a space before the colon, unknown
 * codings, a missing or repeated Host.
 */
#ifndef KVS_HTTP_HTTP_H
#define KVS_HTTP_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/str.h"

#define HTTP_HEAD_MAX	 65536 /* bytes of a head, its blank line included */
#define HTTP_HEADERS_MAX 256

struct http_header {
	struct str name, value; /* value without surrounding blanks */
};

enum http_framing {
	HTTP_NO_BODY, /* GET, HEAD's answer, 1xx, 204, 304, or length 0 is HTTP_LENGTH with 0 */
	HTTP_LENGTH,
	HTTP_CHUNKED,
	HTTP_UNTIL_CLOSE, /* responses only */
};

struct http_head {
	/* request */
	struct str method, target; /* target as received */
	/* response */
	unsigned status; /* 100 … 999 */
	struct str reason;
	/* both */
	unsigned minor; /* HTTP/1.<minor>, 0 or 1 */
	enum http_framing framing;
	uint64_t length;      /* HTTP_LENGTH */
	bool keep_alive;      /* as version and Connection say */
	bool expect_continue; /* request with Expect: 100-continue */
	bool upgrade;	      /* Connection: upgrade with an Upgrade header */
	bool connection;      /* there is a Connection header */
	unsigned nheaders;
	struct http_header headers[HTTP_HEADERS_MAX];
};

/* Length of the head that <s> begins with (up to and with its blank line), 0 if its end has not come yet, -E2BIG when
 * HTTP_HEAD_MAX bytes have come without one, -EBADMSG on a bare LF or NUL. <scanned> remembers how far was looked
 * (start with 0), so that a head that trickles in costs linear time. */
ssize_t http_head_end(struct str s, size_t *scanned);

/* Parse a complete head. 0 and *ret; or -EBADMSG (malformed or ambiguous: 400), -EPROTO (not HTTP/1.x: 505),
 * -E2BIG (more than HTTP_HEADERS_MAX headers: 431), -EOPNOTSUPP (a transfer coding that is not known: 501).
 * <why>, if not NULL, gets a literal that says what is wrong. */
int http_parse_request(struct str head, struct http_head *ret, const char **why);
int http_parse_response(struct str head, bool to_head_request, struct http_head *ret, const char **why);

/* First header of that name, or {NULL, 0}. Names compare without case. */
struct str http_header_get(const struct http_head *h, struct str name);

/* Is <token> in the comma-separated list <value> (without case)? */
bool http_list_has(struct str value, struct str token);

/* May this header not cross a proxy: Connection and what it names, Keep-Alive, Proxy-Connection, Proxy-Authenticate,
 * Proxy-Authorization, TE, Trailer, Transfer-Encoding, Upgrade? Content-Length is not one of them. */
bool http_hop_by_hop(const struct http_head *h, struct str name);

/* Path of <target> normalised for matching: percent-decoded once, "//" and "/./" folded, "/../" resolved, no query; in
 * <out> with a NUL. Returns its length, -EBADMSG for what cannot be a path (no leading "/", absolute form, a bad
 * escape, NUL), -ENAMETOOLONG. */
ssize_t http_path(struct str target, char *out, size_t cap);

/* Walks chunked framing without touching a byte: forwards know where the body ends, observers where the data lies. */
enum http_chunk {
	HTTP_CHUNK_SIZE,
	HTTP_CHUNK_EXT,
	HTTP_CHUNK_SIZE_LF,
	HTTP_CHUNK_DATA,
	HTTP_CHUNK_DATA_CR,
	HTTP_CHUNK_DATA_LF,
	HTTP_CHUNK_LINE, /* a trailer's first byte, or the end's CR */
	HTTP_CHUNK_NAME,
	HTTP_CHUNK_VALUE,
	HTTP_CHUNK_LINE_LF,
	HTTP_CHUNK_END_LF,
	HTTP_CHUNK_DONE,
	HTTP_CHUNK_BAD
};

struct http_chunks {
	uint8_t state; /* enum http_chunk: what the next byte is */
	uint8_t digits;
	uint16_t line;	  /* bytes of the current line (extension or trailer), bounded */
	uint32_t trailer; /* bytes of the trailer section, bounded by HTTP_HEAD_MAX */
	uint64_t left;	  /* data bytes still to come in this chunk */
};

void http_chunks_init(struct http_chunks *c);

/* Walk <n> bytes. Returns how many belong to the body, its last CRLF included: all <n> while it goes on, maybe fewer
 * when http_chunks_done. -EBADMSG for bad framing: sizes above 2^60, bare LF, over-long extensions or trailers.
 * <data>, if not NULL, is called with each run of body data. */
ssize_t http_chunks_walk(struct http_chunks *c, const char *p, size_t n,
			 void (*data)(void *arg, const char *p, size_t n), void *arg);
bool http_chunks_done(const struct http_chunks *c);

#endif
