/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a chunked body. However it is cut, the walk says the same; and where llhttp takes the body too, both see
 * the same data and the same end.
 */
#include <llhttp.h>
#include <stdlib.h>

#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void keep(void *arg, const char *p, size_t n)
{
	require(buf_put(arg, p, n) == 0);
}

static int on_body(llhttp_t *l, const char *p, size_t n)
{
	return buf_put(l->data, p, n);
}

static int on_complete(llhttp_t *l)
{
	return HPE_PAUSED;
}

static void compare_with_llhttp(const char *p, size_t n, size_t used, struct str want)
{
	static const llhttp_settings_t settings = { .on_body = on_body, .on_message_complete = on_complete };
	static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
	struct buf body = { 0 };
	llhttp_t l;

	llhttp_init(&l, HTTP_REQUEST, &settings);
	l.data = &body;
	require(buf_room(&body, 1) && llhttp_execute(&l, head, sizeof(head) - 1) == HPE_OK);
	if (llhttp_execute(&l, p, n) == HPE_PAUSED)
		require(str_eq(buf_str(&body), want) && llhttp_get_error_pos(&l) == p + used);
	else
		require(llhttp_get_errno(&l) != HPE_OK);
	buf_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	struct buf whole = { 0 }, pieces = { 0 };
	struct http_chunks a, b;
	ssize_t used, r = 0;
	size_t at = 0;

	require(buf_room(&whole, 1) && buf_room(&pieces, 1));
	http_chunks_init(&a);
	http_chunks_init(&b);
	used = http_chunks_walk(&a, p, size, keep, &whole);
	for (size_t n = 1; at < size && r >= 0 && !http_chunks_done(&b); at += (size_t)(r > 0 ? r : 0), n = n % 7 + 1)
		r = http_chunks_walk(&b, p + at, size - at < n ? size - at : n, keep, &pieces);
	require(http_chunks_done(&a) == http_chunks_done(&b) && (used < 0 ? r == used : at == (size_t)used));
	require(str_eq(buf_str(&whole), buf_str(&pieces)));
	if (http_chunks_done(&a))
		compare_with_llhttp(p, size, (size_t)used, buf_str(&whole));
	buf_free(&whole);
	buf_free(&pieces);
	return 0;
}
