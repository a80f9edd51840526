/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a request head, as a response head and as a target. A head that is accepted must say the same when it is
 * written anew from its spans, and one that trickles in must end where the whole one does.
 */
#include <errno.h>
#include <stdlib.h>

#include "http/http_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_head h, again;

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void put(struct buf *b, struct str s, const char *end)
{
	require(!memchr(s.p, '\0', s.n) && !memchr(s.p, '\r', s.n) && !memchr(s.p, '\n', s.n));
	require(buf_put(b, s.p, s.n) == 0 && buf_puts(b, end) == 0);
}

/* Also where http_parse_* did not ask it. */
static void require_llhttp_agrees(struct str s, bool request)
{
	require(http_cross_examine(s, request, &h, NULL) == 0);
}

static void write_anew(bool request, bool to_head)
{
	struct buf b = { 0 };

	if (request) {
		put(&b, h.method, " ");
		put(&b, h.target, "");
		buf_printf(&b, " HTTP/1.%u\r\n", h.minor);
	} else {
		buf_printf(&b, "HTTP/1.%u %u ", h.minor, h.status);
		put(&b, h.reason, "\r\n");
	}
	for (unsigned i = 0; i < h.nheaders; i++) {
		put(&b, h.headers[i].name, ": ");
		put(&b, h.headers[i].value, "\r\n");
		http_hop_by_hop(&h, h.headers[i].name);
	}
	buf_puts(&b, "\r\n");
	require((request ? http_parse_request(buf_str(&b), &again, NULL)
			 : http_parse_response(buf_str(&b), to_head, &again, NULL)) == 0);
	require(h.framing == again.framing && h.length == again.length && h.keep_alive == again.keep_alive &&
		h.upgrade == again.upgrade && h.expect_continue == again.expect_continue &&
		h.nheaders == again.nheaders && h.status == again.status);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = { (const char *)data, size };
	char out[64], twice[64];
	size_t scanned = 0, cut = 0;
	ssize_t end = http_head_end(s, &scanned), r = 0, n = http_path(s, out, sizeof(out));

	for (scanned = 0; cut <= size && r == 0; cut++)
		r = http_head_end((struct str){ s.p, cut }, &scanned);
	require(size >= HTTP_HEAD_MAX || r == end || (end > 0 && r == -EBADMSG) || (end < 0 && r < 0));
	require(n < 0 || ((size_t)n == strlen(out) && out[0] == '/' && !strstr(out, "//") && !strstr(out, "/../")));
	if (n > 0 && !strpbrk(out, "%?#"))
		require(http_path((struct str){ out, (size_t)n }, twice, sizeof(twice)) == n && !strcmp(out, twice));
	if (end > 0)
		s.n = (size_t)end;
	if (http_parse_request(s, &h, NULL) == 0) {
		require_llhttp_agrees(s, true);
		write_anew(true, false);
	}
	for (int to_head = 0; to_head < 2; to_head++)
		if (http_parse_response(s, to_head, &h, NULL) == 0) {
			require_llhttp_agrees(s, false);
			write_anew(false, to_head);
		}
	return 0;
}
