/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/http.h"

#define ROWS(a) (sizeof(a) / sizeof((a)[0]))
#define REQ	"POST /v1/completions?x HTTP/1.1\r\nHost: h.example\r\n"
#define CL	"Content-Length: 5\r\n"
#define TE	"Transfer-Encoding: chunked\r\n"
#define OK	"HTTP/1.1 200 OK\r\n"
#define END	"\r\n"

static struct http_head h;

/* Find the head as a proxy would, then parse it. */
static int take(struct str bytes, bool request, bool to_head, const char **why)
{
	size_t scanned = 0;
	ssize_t n = http_head_end(bytes, &scanned);

	if (n <= 0)
		return n ? (int)n : -EAGAIN;
	bytes.n = (size_t)n;
	return request ? http_parse_request(bytes, &h, why) : http_parse_response(bytes, to_head, &h, why);
}

static void what_could_smuggle_a_request_is_refused(void **state)
{
	static const struct {
		const char *name;
		struct str bytes;
		int r;
	} rows[] = {
		{ "length and coding", STR(REQ TE CL END), -EBADMSG },
		{ "coding and length", STR(REQ CL TE END), -EBADMSG },
		{ "two lengths that differ", STR(REQ CL "Content-Length: 6\r\n" END), -EBADMSG },
		{ "two lengths alike", STR(REQ CL CL END), -EBADMSG },
		{ "list of lengths", STR(REQ "Content-Length: 5, 6\r\n" END), -EBADMSG },
		{ "list of equal lengths", STR(REQ "Content-Length: 5, 5\r\n" END), -EBADMSG },
		{ "negative length", STR(REQ "Content-Length: -1\r\n" END), -EBADMSG },
		{ "plus", STR(REQ "Content-Length: +5\r\n" END), -EBADMSG },
		{ "hexadecimal length", STR(REQ "Content-Length: 0x5\r\n" END), -EBADMSG },
		{ "space in the length", STR(REQ "Content-Length: 1 5\r\n" END), -EBADMSG },
		{ "empty length", STR(REQ "Content-Length:\r\n" END), -EBADMSG },
		{ "length of 2^63", STR(REQ "Content-Length: 9223372036854775808\r\n" END), -EBADMSG },
		{ "length of 2^64 and some", STR(REQ "Content-Length: 18446744073709551621\r\n" END), -EBADMSG },
		{ "unknown coding", STR(REQ "Transfer-Encoding: xchunked\r\n" END), -EOPNOTSUPP },
		{ "coding behind gzip", STR(REQ "Transfer-Encoding: gzip\r\n" END), -EOPNOTSUPP },
		{ "gzip, then chunked", STR(REQ "Transfer-Encoding: gzip, chunked\r\n" END), -EBADMSG },
		{ "chunked is not last", STR(REQ "Transfer-Encoding: chunked, identity\r\n" END), -EBADMSG },
		{ "chunked twice", STR(REQ "Transfer-Encoding: chunked, chunked\r\n" END), -EBADMSG },
		{ "two codings", STR(REQ TE "Transfer-Encoding: identity\r\n" END), -EBADMSG },
		{ "two codings alike", STR(REQ TE TE END), -EBADMSG },
		{ "quoted coding", STR(REQ "Transfer-Encoding: \"chunked\"\r\n" END), -EOPNOTSUPP },
		{ "empty coding", STR(REQ "Transfer-Encoding:\r\n" END), -EOPNOTSUPP },
		{ "vertical tab before the coding", STR(REQ "Transfer-Encoding: \vchunked\r\n" END), -EBADMSG },
		{ "space before the colon", STR(REQ "Transfer-Encoding : chunked\r\n" CL END), -EBADMSG },
		{ "tab before the colon", STR(REQ "Transfer-Encoding\t: chunked\r\n" END), -EBADMSG },
		{ "tab before the coding is legal", STR(REQ "Transfer-Encoding:\tchunked\r\n" END), 0 },
		{ "blanks around the coding are legal", STR(REQ "Transfer-Encoding: \t chunked  \r\n" END), 0 },
		/* Legal, but engines that read with llhttp do not take it for chunked. */
		{ "tab behind the coding", STR(REQ "Transfer-Encoding: chunked\t\r\n" END), -EBADMSG },
		{ "coding from HTTP/1.0", STR("POST / HTTP/1.0\r\nHost: h\r\n" TE END), -EBADMSG },
		{ "both from HTTP/1.0", STR("POST / HTTP/1.0\r\nHost: h\r\n" TE CL END), -EBADMSG },
		{ "folded line", STR(REQ "X-Fold: a\r\n b\r\n" CL END), -EBADMSG },
		{ "fold in the coding", STR(REQ "Transfer-Encoding:\r\n chunked\r\n" END), -EBADMSG },
		{ "fold at once", STR("POST / HTTP/1.1\r\n Host: h\r\n" END), -EBADMSG },
		{ "bare LF everywhere",
		  STR("POST / HTTP/1.1\nHost: h\n"
		      "Content-Length: 5\n\n"),
		  -EBADMSG },
		{ "bare LF once", STR(REQ "X-A: b\n" CL END), -EBADMSG },
		{ "bare LF hides the end", STR(REQ CL "\n" END), -EBADMSG },
		{ "bare CR", STR(REQ "X-A: b\rTransfer-Encoding: chunked\r\n" CL END), -EBADMSG },
		{ "CR CR LF", STR(REQ "X-A: b\r\r\n" CL END), -EBADMSG },
		{ "bare CR for an empty line", STR(REQ CL "\rX: y\r\n" END), -EBADMSG },
		{ "NUL in a value", STR(REQ "X-A: b\0c\r\n" CL END), -EBADMSG },
		{ "NUL in a name", STR(REQ "X\0A: b\r\n" CL END), -EBADMSG },
		{ "DEL in a value", STR(REQ "X-A: b\x7f\r\n" CL END), -EBADMSG },
		{ "space in a name", STR(REQ "X A: b\r\n" CL END), -EBADMSG },
		{ "no colon", STR(REQ "X-A\r\n" CL END), -EBADMSG },
		{ "no name", STR(REQ ": b\r\n" CL END), -EBADMSG },
		{ "name that is no token", STR(REQ "X(A): b\r\n" CL END), -EBADMSG },
		{ "name beyond ASCII", STR(REQ "X\xc3\xa4: b\r\n" CL END), -EBADMSG },
		{ "no Host", STR("POST / HTTP/1.1\r\n" CL END), -EBADMSG },
		{ "two Hosts", STR(REQ "Host: other.example\r\n" CL END), -EBADMSG },
		{ "two Hosts alike", STR(REQ "Host: h.example\r\n" CL END), -EBADMSG },
		{ "two Hosts in one", STR("POST / HTTP/1.1\r\nHost: a, b\r\n" CL END), -EBADMSG },
		{ "Host with a path", STR("POST / HTTP/1.1\r\nHost: a/b\r\n" CL END), -EBADMSG },
		{ "two Hosts in HTTP/1.0", STR("POST / HTTP/1.0\r\nHost: a\r\nHost: a\r\n" CL END), -EBADMSG },
		{ "no Host in HTTP/1.0 is legal", STR("POST / HTTP/1.0\r\n" CL END), 0 },
		{ "method that is no token", STR("PO(ST / HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "method in lower case", STR("post / HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "no method", STR(" / HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "version 1.10", STR("POST / HTTP/1.10\r\nHost: h\r\n" END), -EBADMSG },
		{ "version in lower case", STR("POST / http/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "version 1.2", STR("POST / HTTP/1.2\r\nHost: h\r\n" END), -EPROTO },
		{ "version 2.0", STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), -EPROTO },
		{ "version 0.9", STR("GET / HTTP/0.9\r\nHost: h\r\n" END), -EPROTO },
		{ "no version", STR("GET /\r\nHost: h\r\n" END), -EBADMSG },
		{ "three words before the version", STR("POST / x HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "two spaces", STR("POST  / HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "two spaces before the version", STR("POST /  HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "tab in the request line", STR("POST\t/ HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "space behind the version", STR("POST / HTTP/1.1 \r\nHost: h\r\n" END), -EBADMSG },
		{ "target beyond ASCII", STR("GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "target with a fragment", STR("GET /a#b HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "empty line first is skipped", STR("\r\nGET / HTTP/1.1\r\nHost: h\r\n" END), 0 },
		{ "two empty lines first", STR("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n" END), -EBADMSG },
		{ "TLS", STR("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"), -EBADMSG },
		{ "incomplete", STR(REQ CL), -EAGAIN },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *why = NULL;
		int r = take(rows[i].bytes, true, false, &why);

		if (r != rows[i].r)
			fail_msg("%s: %d (%s), want %d", rows[i].name, r, why ? why : "-", rows[i].r);
	}
}

static void an_answer_with_doubtful_framing_is_refused(void **state)
{
	static const struct {
		const char *name;
		struct str bytes;
		int r;
	} rows[] = {
		{ "length and coding", STR(OK TE CL END), -EBADMSG },
		{ "two lengths", STR(OK CL CL END), -EBADMSG },
		{ "list of lengths", STR(OK "Content-Length: 5, 5\r\n" END), -EBADMSG },
		{ "negative length", STR(OK "Content-Length: -1\r\n" END), -EBADMSG },
		{ "two codings", STR(OK TE TE END), -EBADMSG },
		{ "unknown coding", STR(OK "Transfer-Encoding: gzip\r\n" END), -EOPNOTSUPP },
		{ "gzip, then chunked", STR(OK "Transfer-Encoding: gzip, chunked\r\n" END), -EBADMSG },
		{ "coding in HTTP/1.0", STR("HTTP/1.0 200 OK\r\n" TE END), -EBADMSG },
		{ "space before the colon", STR(OK "Content-Length : 5\r\n" END), -EBADMSG },
		{ "folded line", STR(OK "X: a\r\n b\r\n" CL END), -EBADMSG },
		{ "bare LF", STR(OK "X: a\n" CL END), -EBADMSG },
		{ "bare CR", STR(OK "X: a\rb\r\n" CL END), -EBADMSG },
		{ "NUL", STR(OK "X: a\0b\r\n" CL END), -EBADMSG },
		{ "length with 204", STR("HTTP/1.1 204 No Content\r\n" CL END), -EBADMSG },
		{ "coding with 100", STR("HTTP/1.1 100 Continue\r\n" TE END), -EBADMSG },
		{ "both with 304", STR("HTTP/1.1 304 Not Modified\r\n" TE CL END), -EBADMSG },
		{ "status 099", STR("HTTP/1.1 099 X\r\n" END), -EBADMSG },
		{ "status of two digits", STR("HTTP/1.1 20 OK\r\n" END), -EBADMSG },
		{ "status of four digits", STR("HTTP/1.1 2000 OK\r\n" END), -EBADMSG },
		{ "two spaces", STR("HTTP/1.1  200 OK\r\n" END), -EBADMSG },
		{ "version 2.0", STR("HTTP/2.0 200 OK\r\n" END), -EPROTO },
		{ "tab behind the coding", STR(OK "Transfer-Encoding: chunked\t\r\n" END), -EBADMSG },
		{ "garbage", STR("\x16\x03\x01garbage\r\n\r\nmore"), -EBADMSG },
		{ "empty line first", STR("\r\n" OK CL END), -EBADMSG },
		{ "shortest", STR("HTTP/1.1 200\r\n\r\n"), 0 },
		{ "no status", STR("HTTP/1.1 \r\n\r\n"), -EBADMSG },
		{ "version only", STR("HTTP/1.1\r\n\r\n"), -EBADMSG },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *why = NULL;
		int r = take(rows[i].bytes, false, false, &why);

		if (r != rows[i].r)
			fail_msg("%s: %d (%s), want %d", rows[i].name, r, why ? why : "-", rows[i].r);
	}
}

static void framing_and_persistence_follow_the_rfc(void **state)
{
	static const struct {
		struct str bytes;
		bool request, to_head;
		enum http_framing framing;
		uint64_t length;
		bool keep_alive, expect, upgrade;
	} rows[] = {
		{ STR("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), true, false, HTTP_NO_BODY, 0, true, false, false },
		{ STR(REQ CL END), true, false, HTTP_LENGTH, 5, true, false, false },
		{ STR(REQ "content-length: 0\r\n" END), true, false, HTTP_LENGTH, 0, true, false, false },
		{ STR(REQ "Content-Length: 007 \r\n" END), true, false, HTTP_LENGTH, 7, true, false, false },
		{ STR(REQ TE END), true, false, HTTP_CHUNKED, 0, true, false, false },
		{ STR(REQ "transfer-encoding: CHUNKED\r\n" END), true, false, HTTP_CHUNKED, 0, true, false, false },
		{ STR(REQ CL "Connection: close\r\n" END), true, false, HTTP_LENGTH, 5, false, false, false },
		{ STR(REQ CL "Connection: x\r\nConnection: a ,Close\r\n" END), true, false, HTTP_LENGTH, 5, false,
		  false, false },
		{ STR(REQ CL "Expect: 100-Continue\r\n" END), true, false, HTTP_LENGTH, 5, true, true, false },
		{ STR("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), true, false, HTTP_NO_BODY, 0, false, false,
		  false },
		{ STR("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), true, false, HTTP_NO_BODY, 0, true, false,
		  false },
		{ STR(REQ "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" END), true, false, HTTP_NO_BODY,
		  0, true, false, true },
		{ STR(REQ "Upgrade: h2c\r\n" END), true, false, HTTP_NO_BODY, 0, true, false, false },
		{ STR(OK CL END), false, false, HTTP_LENGTH, 5, true, false, false },
		{ STR(OK TE END), false, false, HTTP_CHUNKED, 0, true, false, false },
		{ STR(OK END), false, false, HTTP_UNTIL_CLOSE, 0, false, false, false },
		{ STR(OK CL END), false, true, HTTP_NO_BODY, 0, true, false, false },
		{ STR(OK TE END), false, true, HTTP_NO_BODY, 0, true, false, false },
		{ STR(OK "Connection: close\r\n" CL END), false, false, HTTP_LENGTH, 5, false, false, false },
		{ STR("HTTP/1.0 200 OK\r\n" CL END), false, false, HTTP_LENGTH, 5, false, false, false },
		{ STR("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" CL END), false, false, HTTP_LENGTH, 5, true,
		  false, false },
		{ STR("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n" END), false, false, HTTP_NO_BODY, 0, true,
		  false, false },
		{ STR("HTTP/1.1 304 Not Modified\r\n" CL END), false, false, HTTP_NO_BODY, 0, true, false, false },
		{ STR("HTTP/1.1 100 Continue\r\n" END), false, false, HTTP_NO_BODY, 0, true, false, false },
		{ STR("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n" END), false, false, HTTP_NO_BODY, 0,
		  true, false, true },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *why = NULL;

		memset(&h, 0xa5, sizeof(h));
		if (take(rows[i].bytes, rows[i].request, rows[i].to_head, &why) != 0)
			fail_msg("row %zu: %s", i, why);
		if (h.framing != rows[i].framing || h.length != rows[i].length || h.keep_alive != rows[i].keep_alive ||
		    h.expect_continue != rows[i].expect || h.upgrade != rows[i].upgrade)
			fail_msg("row %zu: framing %d length %ju keep %d expect %d upgrade %d", i, h.framing,
				 (uintmax_t)h.length, h.keep_alive, h.expect_continue, h.upgrade);
	}
}

static void spans_point_into_the_callers_bytes(void **state)
{
	static const char head[] =
		"GET /a%20b?c=d HTTP/1.0\r\nX-Empty:\r\nX-Blank: \t \r\nx-two:\tb c \r\nX-Two: second\r\n"
		"X-Utf: \xc3\xa4\r\n\r\n";

	assert_int_equal(take(STR(head), true, false, NULL), 0);
	assert_true(h.method.p == head && str_eq(h.method, STR("GET")));
	assert_true(h.target.p == head + 4 && str_eq(h.target, STR("/a%20b?c=d")));
	assert_int_equal(h.minor, 0);
	assert_int_equal(h.nheaders, 5);
	assert_true(str_eq(h.headers[0].name, STR("X-Empty")) && h.headers[0].value.n == 0);
	assert_true(h.headers[1].value.n == 0);
	assert_true(str_eq(http_header_get(&h, STR("X-TWO")), STR("b c")));
	assert_true(http_header_get(&h, STR("X-Empty")).p != NULL);
	assert_true(http_header_get(&h, STR("X-Emptyy")).p == NULL);
	assert_true(str_eq(http_header_get(&h, STR("x-utf")), STR("\xc3\xa4")));

	assert_int_equal(take(STR("HTTP/1.1 404 Not  Found \r\nContent-Length: 3\r\n\r\n"), false, false, NULL), 0);
	assert_int_equal(h.status, 404);
	assert_true(str_eq(h.reason, STR("Not  Found ")));
	assert_int_equal(h.minor, 1);
	assert_int_equal(take(STR("HTTP/1.1 999\r\n\r\n"), false, false, NULL), 0);
	assert_int_equal(h.status, 999);
	assert_int_equal(h.reason.n, 0);
}

static void heads_end_at_their_limits(void **state)
{
	static char s[2 * HTTP_HEAD_MAX];
	size_t n = 0, scanned = 0;

	n += (size_t)sprintf(s, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
	memset(s + n, 'a', HTTP_HEAD_MAX - n);
	memcpy(s + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
	assert_int_equal(take((struct str){ s, HTTP_HEAD_MAX + 7 }, true, false, NULL), 0);
	assert_int_equal(h.headers[1].value.n, HTTP_HEAD_MAX - n - 4);
	/* One byte more is too long, whether it comes at once or in pieces. */
	memset(s + n, 'a', HTTP_HEAD_MAX);
	memcpy(s + HTTP_HEAD_MAX - 3, "\r\n\r\n", 4);
	assert_int_equal(http_head_end((struct str){ s, HTTP_HEAD_MAX + 1 }, &scanned), -E2BIG);
	scanned = 0;
	assert_int_equal(http_head_end((struct str){ s, HTTP_HEAD_MAX - 1 }, &scanned), 0);
	assert_int_equal(http_head_end((struct str){ s, HTTP_HEAD_MAX }, &scanned), -E2BIG);

	for (int extra = 0; extra < 2; extra++) {
		n = (size_t)sprintf(s, "GET / HTTP/1.1\r\nHost: h\r\n");
		for (int i = 1; i < HTTP_HEADERS_MAX + extra; i++)
			n += (size_t)sprintf(s + n, "X-%d: %d\r\n", i, i);
		n += (size_t)sprintf(s + n, "\r\n");
		assert_int_equal(take((struct str){ s, n }, true, false, NULL), extra ? -E2BIG : 0);
	}
	assert_int_equal(h.nheaders, HTTP_HEADERS_MAX);
}

static void a_head_that_trickles_in_is_found_the_same(void **state)
{
	static const char s[] = "\r\nGET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\nbody\r\n\r\n";
	static const char lf[] = "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n";
	size_t want = sizeof(s) - 1 - strlen("body\r\n\r\n"), scanned = 0;

	for (size_t n = 0; n < sizeof(s); n++) {
		assert_int_equal(http_head_end((struct str){ s, n }, &scanned), n < want ? 0 : want);
		if (n < want)
			assert_int_equal(scanned, n);
	}
	scanned = 0;
	for (size_t n = 0, bad = strcspn(lf, "\n") + strlen("\nHost: h"); n < sizeof(lf); n++)
		assert_int_equal(http_head_end((struct str){ lf, n }, &scanned), n <= bad ? 0 : -EBADMSG);
}

/* Not when the head is complete, and not only by the parser: these bytes are not waited for. */
static void what_no_head_may_hold_is_refused_at_once(void **state)
{
	size_t scanned = 0;

	assert_int_equal(http_head_end(STR("GET /\0"), &scanned), -EBADMSG);
	scanned = 0;
	assert_int_equal(http_head_end(STR("GET /"), &scanned), 0);
	assert_int_equal(http_head_end(STR("GET /a\0b"), &scanned), -EBADMSG);
	scanned = 0;
	assert_int_equal(http_head_end(STR("GET / HTTP/1.1\r\nA: \0\r\n\r\n"), &scanned), -EBADMSG);
	/* What follows the head is not looked at. */
	scanned = 0;
	assert_int_equal(http_head_end(STR("GET / HTTP/1.1\r\nA: b\r\n\r\n\0\n"), &scanned), 24);
}

static void the_reason_says_what_is_wrong(void **state)
{
	static const struct {
		struct str bytes;
		const char *why;
	} rows[] = {
		{ STR(REQ CL TE END), "both Content-Length and Transfer-Encoding" },
		{ STR(REQ CL CL END), "more than one Content-Length" },
		{ STR(REQ TE TE END), "more than one Transfer-Encoding" },
		{ STR("GET / HTTP/1.1\r\nA: b\r\n" END), "no Host" },
		{ STR(REQ "Host: h\r\n" END), "more than one Host" },
		{ STR(REQ "X: a\r\n b\r\n" END), "folded header line" },
		{ STR(REQ "X : a\r\n" END), "blank in or behind a header name" },
		{ STR("GET / HTTP/1.10\r\nHost: h\r\n" END), "malformed HTTP version" },
		{ STR("get / HTTP/1.1\r\nHost: h\r\n" END), "Invalid method encountered" },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *why = NULL;

		assert_true(take(rows[i].bytes, true, false, &why) < 0);
		assert_string_equal(why, rows[i].why);
	}
}

static void hop_by_hop_headers_stay_on_their_hop(void **state)
{
	static const struct {
		const char *name;
		bool hop;
	} rows[] = {
		{ "connection", true },
		{ "TE", true },
		{ "Trailer", true },
		{ "upgrade", true },
		{ "Keep-Alive", true },
		{ "Proxy-Connection", true },
		{ "x-mine", true },
		{ "X-Other", true },
		{ "Proxy-Authenticate", true },
		{ "x-third", true },
		{ "Proxy-Authorization", true },
		{ "TRANSFER-ENCODING", true },
		{ "Content-Length", false },
		{ "host", false },
		{ "Authorization", false },
		{ "X-Min", false },
		{ "", false },
		{ "Accept", false },
	};

	assert_int_equal(
		take(STR(REQ "Connection: X-Mine ,,x-other, content-length, Host\r\nConnection:x-third\r\n" CL END),
		     true, false, NULL),
		0);
	for (size_t i = 0; i < ROWS(rows); i++)
		if (http_hop_by_hop(&h, str_of(rows[i].name)) != rows[i].hop)
			fail_msg("%s: want %d", rows[i].name, rows[i].hop);
}

static void paths_are_matched_in_their_normal_form(void **state)
{
	static const struct {
		struct str target;
		const char *path; /* NULL: refused */
	} rows[] = {
		{ STR("/"), "/" },
		{ STR("/v1/models"), "/v1/models" },
		{ STR("/v1/models/"), "/v1/models/" },
		{ STR("/v1/models?x=/../y"), "/v1/models" },
		{ STR("//sleep"), "/sleep" },
		{ STR("/v1/../sleep"), "/sleep" },
		{ STR("/%73leep"), "/sleep" },
		{ STR("/%2573leep"), "/%73leep" },
		{ STR("/v1//.//chat/./completions"), "/v1/chat/completions" },
		{ STR("/v1/%2e%2E/sleep"), "/sleep" },
		{ STR("/v1%2f..%2Fsleep"), "/sleep" },
		{ STR("/v1%2fmodels"), "/v1/models" },
		{ STR("/../../sleep"), "/sleep" },
		{ STR("/.."), "/" },
		{ STR("/."), "/" },
		{ STR("/a/.."), "/" },
		{ STR("/a/b/.."), "/a/" },
		{ STR("/a/b/."), "/a/b/" },
		{ STR("/a/b/..c/...d"), "/a/b/..c/...d" },
		{ STR("/a/..b"), "/a/..b" },
		{ STR("/a../b"), "/a../b" },
		{ STR("/%C3%A4"), "/\xc3\xa4" },
		{ STR("/a%3Fb"), "/a?b" },
		{ STR("/a%"), NULL },
		{ STR("/a%4"), NULL },
		{ STR("/a%4g"), NULL },
		{ STR("/a%?41"), NULL },
		{ STR("/a%00"), NULL },
		{ STR("/a%0d%0a"), NULL },
		{ STR("/a%7f"), NULL },
		{ STR("/a#b"), NULL },
		{ STR("/a%4"
		      "1%"),
		  NULL },
		{ STR(""), NULL },
		{ STR("*"), NULL },
		{ STR("v1/models"), NULL },
		{ STR("http://h/v1/models"), NULL },
	};
	char out[64];

	for (size_t i = 0; i < ROWS(rows); i++) {
		ssize_t n = http_path(rows[i].target, out, sizeof(out));

		if (rows[i].path ? n != (ssize_t)strlen(rows[i].path) || strcmp(out, rows[i].path) : n != -EBADMSG)
			fail_msg("%.*s: %zd %s, want %s", (int)rows[i].target.n, rows[i].target.p, n, n < 0 ? "" : out,
				 rows[i].path);
	}
	assert_int_equal(http_path(STR("/abc"), out, 5), 4);
	assert_int_equal(http_path(STR("/abc"), out, 4), -ENAMETOOLONG);
	assert_int_equal(http_path(STR("/"), out, 0), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_could_smuggle_a_request_is_refused),
		cmocka_unit_test(an_answer_with_doubtful_framing_is_refused),
		cmocka_unit_test(framing_and_persistence_follow_the_rfc),
		cmocka_unit_test(spans_point_into_the_callers_bytes),
		cmocka_unit_test(heads_end_at_their_limits),
		cmocka_unit_test(a_head_that_trickles_in_is_found_the_same),
		cmocka_unit_test(what_no_head_may_hold_is_refused_at_once),
		cmocka_unit_test(the_reason_says_what_is_wrong),
		cmocka_unit_test(hop_by_hop_headers_stay_on_their_hop),
		cmocka_unit_test(paths_are_matched_in_their_normal_form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
