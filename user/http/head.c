/* SPDX-License-Identifier: Apache-2.0
 *
 * A head counts only where two readers that do not know each other agree.
 *
 * The first is the walk below: RFC 9112's grammar and nothing beyond it, so each byte of the head has exactly one
 * place. It fills struct http_head. The second is llhttp, whose reading of lengths, codings, methods and versions is
 * the one that much of the world's software shares. Debian builds it in its loose mode (bare LF ends a line, a space
 * may stand in a name), hence the first reader; and what the walk lets pass but llhttp reads otherwise is just the kind
 * of head that smuggles, hence the second.
 *
 * A *plain* head is one that leaves nothing to differ about: GET or POST of a path, or a final status, in HTTP/1.1;
 * each value visible ASCII behind one space; no transfer coding, no upgrade. There the second reader is not asked: it
 * agrees (fuzz_http holds it to that), and its state machine, which is out of the caches whenever the next head comes,
 * took 2 us of each.
 *
 * Framing is decided last, from the agreed fields alone.
 */
#include "http/http.h"

#include <errno.h>
#include <llhttp.h>

#include "http/http_int.h"

#define P    HTTP_C_PLAIN
#define V    HTTP_C_VALUE
#define TVUH (P | HTTP_C_TOKEN | HTTP_C_VALUE | HTTP_C_TARGET | HTTP_C_HOST)
#define TVU  (P | HTTP_C_TOKEN | HTTP_C_VALUE | HTTP_C_TARGET)
#define TV   (P | HTTP_C_TOKEN | HTTP_C_VALUE)
#define VUH  (P | HTTP_C_VALUE | HTTP_C_TARGET | HTTP_C_HOST)
#define VU   (P | HTTP_C_VALUE | HTTP_C_TARGET)

const unsigned char http_class[256] = {
	['\t'] = V,   [' '] = P | V,	    ['!'] = TVUH,	  ['"'] = VU,	['#'] = TV,  ['$'] = TVUH,
	['%'] = TVUH, ['&'] = TVUH,	    ['\''] = TVUH,	  ['('] = VUH,	[')'] = VUH, ['*'] = TVUH,
	['+'] = TVUH, [','] = VU,	    ['-'] = TVUH,	  ['.'] = TVUH, ['/'] = VU,  ['0' ... '9'] = TVUH,
	[':'] = VUH,  [';'] = VUH,	    ['<'] = VU,		  ['='] = VUH,	['>'] = VU,  ['?'] = VU,
	['@'] = VU,   ['A' ... 'Z'] = TVUH, ['['] = VUH,	  ['\\'] = VU,	[']'] = VUH, ['^'] = TVU,
	['_'] = TVUH, ['`'] = TVU,	    ['a' ... 'z'] = TVUH, ['{'] = VU,	['|'] = TVU, ['}'] = VU,
	['~'] = TVUH, [0x80 ... 0xff] = V,
};

ssize_t http_head_end(struct str s, size_t *scanned)
{
	size_t from = *scanned, limit = s.n < HTTP_HEAD_MAX ? s.n : HTTP_HEAD_MAX;

	/* What lies before <from> is known to be good and not to hold the end; it may still hold the CR of the next LF.
	 */
	for (size_t at = from; at < limit;) {
		const char *lf = memchr(s.p + at, '\n', limit - at);
		size_t i;

		if (!lf)
			break;
		i = (size_t)(lf - s.p);
		if (i == 0 || s.p[i - 1] != '\r')
			return -EBADMSG;
		if (i >= 3 && s.p[i - 2] == '\n') {
			if (memchr(s.p + from, '\0', i - from))
				return -EBADMSG;
			return (ssize_t)i + 1;
		}
		at = i + 1;
	}
	if (limit > from && memchr(s.p + from, '\0', limit - from))
		return -EBADMSG;
	*scanned = limit > from ? limit : from;
	return s.n >= HTTP_HEAD_MAX ? -E2BIG : 0;
}

static int refuse(const char **why, int err, const char *what)
{
	if (why)
		*why = what;
	return err;
}

/* The walk's loops need no bounds: the head ends in CR LF, which belongs to no class. */
static const char *run(const char *p, unsigned class)
{
	while (http_is(*p, class))
		p++;
	return p;
}

/* "HTTP/1.x" at <p>, with at least one byte behind it. */
static int read_version(const char *p, const char *end, unsigned *ret_minor, const char **why)
{
	if (end - p < 9 || memcmp(p, "HTTP/", 5) != 0 || p[5] < '0' || p[5] > '9' || p[6] != '.' || p[7] < '0' ||
	    p[7] > '9')
		return refuse(why, -EBADMSG, "malformed HTTP version");
	if (p[8] != ' ' && p[8] != '\r')
		return refuse(why, -EBADMSG, "malformed HTTP version");
	if (p[5] != '1' || p[7] > '1')
		return refuse(why, -EPROTO, "HTTP version is neither 1.0 nor 1.1");
	*ret_minor = (unsigned)(p[7] - '0');
	return 0;
}

static int walk_request_line(const char **pp, const char *end, struct http_head *h, bool *plain, const char **why)
{
	const char *p = *pp, *q = run(p, HTTP_C_TOKEN);
	int r;

	if (q == p || *q != ' ')
		return refuse(why, -EBADMSG, "malformed method");
	h->method = (struct str){ p, (size_t)(q - p) };
	p = q + 1;
	q = run(p, HTTP_C_TARGET);
	if (q == p || *q != ' ')
		return refuse(why, -EBADMSG, "malformed request target");
	h->target = (struct str){ p, (size_t)(q - p) };
	p = q + 1;
	r = read_version(p, end, &h->minor, why);
	if (r < 0)
		return r;
	if (p[8] != '\r' || p[9] != '\n')
		return refuse(why, -EBADMSG, "malformed request line");
	*plain = h->minor == 1 && h->target.p[0] == '/' &&
		 (str_eq(h->method, STR("POST")) || str_eq(h->method, STR("GET")));
	*pp = p + 10;
	return 0;
}

static int walk_status_line(const char **pp, const char *end, struct http_head *h, bool *plain, const char **why)
{
	const char *p = *pp, *q;
	int r = read_version(p, end, &h->minor, why);

	if (r < 0)
		return r;
	/* Shortest rest: " 200" CR LF CR LF. */
	if (end - p < 16 || p[8] != ' ' || p[9] < '1' || p[9] > '9' || p[10] < '0' || p[10] > '9' || p[11] < '0' ||
	    p[11] > '9')
		return refuse(why, -EBADMSG, "malformed status");
	h->status = (unsigned)(p[9] - '0') * 100 + (unsigned)(p[10] - '0') * 10 + (unsigned)(p[11] - '0');
	p += 12;
	q = *p == ' ' ? run(++p, HTTP_C_VALUE) : p;
	*plain = h->minor == 1 && h->status >= 200 && run(p, HTTP_C_PLAIN) == q && q != p;
	if (q[0] != '\r' || q[1] != '\n')
		return refuse(why, -EBADMSG, "malformed status line");
	h->reason = (struct str){ p, (size_t)(q - p) };
	*pp = q + 2;
	return 0;
}

/* <plain> becomes false where there is something that readers differ about. */
static int walk_headers(const char *p, const char *end, struct http_head *h, bool *plain, const char **why)
{
	h->nheaders = 0;
	while (*p != '\r') {
		struct http_header *f = &h->headers[h->nheaders];
		const char *q = run(p, HTTP_C_TOKEN);

		if (*q != ':' || q == p) {
			if (*p == ' ' || *p == '\t')
				return refuse(why, -EBADMSG, "folded header line");
			if (*q == ' ' || *q == '\t')
				return refuse(why, -EBADMSG, "blank in or behind a header name");
			return refuse(why, -EBADMSG, "malformed header name");
		}
		if (h->nheaders == HTTP_HEADERS_MAX)
			return refuse(why, -E2BIG, "too many headers");
		f->name = (struct str){ p, (size_t)(q - p) };
		p = q + 1;
		q = run(p, HTTP_C_PLAIN);
		*plain &= *q == '\r' && q - p > 1 && p[0] == ' ' && p[1] != ' ' && q[-1] != ' ';
		q = run(q, HTTP_C_VALUE);
		if (q[0] != '\r' || q[1] != '\n')
			return refuse(why, -EBADMSG, "control character in a header value");
		f->value = str_trim((struct str){ p, (size_t)(q - p) });
		h->nheaders++;
		p = q + 2;
	}
	if (p + 2 != end)
		return refuse(why, -EBADMSG, "bytes behind the head");
	return 0;
}

/* llhttp's reading, compared with the walk's span by span. */
struct witness {
	const struct http_head *h;
	unsigned fields;
	bool complete;
};

static int same_as(struct str s, const char *at, size_t n)
{
	return s.p == at && s.n == n ? 0 : -1;
}

static int on_url(llhttp_t *l, const char *at, size_t n)
{
	struct witness *w = l->data;

	return same_as(w->h->target, at, n);
}

static int on_field(llhttp_t *l, const char *at, size_t n)
{
	struct witness *w = l->data;

	return w->fields < w->h->nheaders ? same_as(w->h->headers[w->fields++].name, at, n) : -1;
}

static int on_value(llhttp_t *l, const char *at, size_t n)
{
	struct witness *w = l->data;
	struct str v = str_trim((struct str){ at, n });

	if (w->fields == 0)
		return -1;
	/* Where an empty value stands is a matter of taste. */
	return v.n == 0 && w->h->headers[w->fields - 1].value.n == 0
		       ? 0
		       : same_as(w->h->headers[w->fields - 1].value, v.p, v.n);
}

static int on_complete(llhttp_t *l)
{
	struct witness *w = l->data;

	w->complete = true;
	return HPE_PAUSED;
}

int http_cross_examine(struct str head, bool request, const struct http_head *h, const char **why)
{
	static const llhttp_settings_t settings = {
		.on_url = on_url,
		.on_header_field = on_field,
		.on_header_value = on_value,
		.on_headers_complete = on_complete,
	};
	struct witness w = { .h = h };
	llhttp_t l;

	llhttp_init(&l, request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
	l.data = &w;
	if (llhttp_execute(&l, head.p, head.n) != HPE_PAUSED || !w.complete) {
		const char *reason = llhttp_get_error_reason(&l);

		return refuse(why, -EBADMSG, reason && *reason ? reason : "malformed head");
	}
	if (w.fields != h->nheaders || l.http_major != 1 || l.http_minor != h->minor ||
	    (request ? !str_eq(str_of(llhttp_method_name(l.method)), h->method) : l.status_code != h->status))
		return refuse(why, -EBADMSG, "head that can be read in two ways");
	if (h->framing == HTTP_CHUNKED
		    ? !(l.flags & F_CHUNKED)
		    : h->framing == HTTP_LENGTH && (!(l.flags & F_CONTENT_LENGTH) || l.content_length != h->length))
		return refuse(why, -EBADMSG, "framing that can be read in two ways");
	return 0;
}

/* What the fields that steer framing and the connection say. */
struct facts {
	struct str host, length, coding;
	unsigned hosts, lengths, codings;
	bool close, keep_alive, connection_upgrade, upgrade, expect;
};

static void collect(struct http_head *h, struct facts *f)
{
	h->connection = false;
	for (unsigned i = 0; i < h->nheaders; i++) {
		struct str name = h->headers[i].name, value = h->headers[i].value;

		switch (name.n) {
		case 4:
			if (str_ieq(name, STR("host"))) {
				f->host = value;
				f->hosts++;
			}
			break;
		case 6:
			f->expect |= str_ieq(name, STR("expect")) && str_ieq(value, STR("100-continue"));
			break;
		case 7:
			f->upgrade |= str_ieq(name, STR("upgrade"));
			break;
		case 10:
			if (str_ieq(name, STR("connection"))) {
				h->connection = true;
				f->close |= http_list_has(value, STR("close"));
				f->keep_alive |= http_list_has(value, STR("keep-alive"));
				f->connection_upgrade |= http_list_has(value, STR("upgrade"));
			}
			break;
		case 14:
			if (str_ieq(name, STR("content-length"))) {
				f->length = value;
				f->lengths++;
			}
			break;
		case 17:
			if (str_ieq(name, STR("transfer-encoding"))) {
				f->coding = value;
				f->codings++;
			}
			break;
		}
	}
}

/* Length and coding, as far as they do not depend on the kind of message. Leaves HTTP_NO_BODY where there is neither.
 */
static int decide_framing(struct http_head *h, const struct facts *f, const char **why)
{
	h->framing = HTTP_NO_BODY;
	h->length = 0;
	if (f->codings && f->lengths)
		return refuse(why, -EBADMSG, "both Content-Length and Transfer-Encoding");
	if (f->codings > 1)
		return refuse(why, -EBADMSG, "more than one Transfer-Encoding");
	if (f->codings) {
		if (h->minor == 0)
			return refuse(why, -EBADMSG, "Transfer-Encoding in HTTP/1.0");
		if (!str_ieq(f->coding, STR("chunked"))) {
			if (http_list_has(f->coding, STR("chunked")))
				return refuse(why, -EBADMSG, "chunked is not the only transfer coding");
			return refuse(why, -EOPNOTSUPP, "unknown transfer coding");
		}
		h->framing = HTTP_CHUNKED;
	}
	if (f->lengths > 1)
		return refuse(why, -EBADMSG, "more than one Content-Length");
	if (f->lengths) {
		if (str_u64(f->length, &h->length) < 0 || h->length > INT64_MAX)
			return refuse(why, -EBADMSG, "malformed Content-Length");
		h->framing = HTTP_LENGTH;
	}
	return 0;
}

static bool is_plain(const struct facts *f, bool plain)
{
	return plain && !f->codings && !f->upgrade;
}

static bool keeps_alive(const struct http_head *h, const struct facts *f)
{
	return !f->close && (h->minor == 1 || f->keep_alive);
}

int http_parse_request(struct str head, struct http_head *ret, const char **why)
{
	const char *p = head.p, *end = head.p + head.n;
	struct facts f = { 0 };
	bool plain;
	int r;

	if (head.n < 4 || memcmp(end - 4, "\r\n\r\n", 4) != 0)
		return refuse(why, -EBADMSG, "incomplete head");
	/* One empty line before a request is left over from a client that ends bodies with one (RFC 9112, 2.2). */
	if (p[0] == '\r' && p[1] == '\n')
		p += 2;
	ret->status = 0;
	ret->reason = (struct str){ 0 };
	r = walk_request_line(&p, end, ret, &plain, why);
	if (r < 0)
		return r;
	r = walk_headers(p, end, ret, &plain, why);
	if (r < 0)
		return r;

	collect(ret, &f);
	if (f.hosts > 1 || (f.hosts == 0 && ret->minor == 1))
		return refuse(why, -EBADMSG, f.hosts ? "more than one Host" : "no Host");
	if (f.hosts && f.host.n && run(f.host.p, HTTP_C_HOST) != f.host.p + f.host.n)
		return refuse(why, -EBADMSG, "malformed Host");
	r = decide_framing(ret, &f, why);
	if (r < 0)
		return r;
	ret->keep_alive = keeps_alive(ret, &f);
	ret->expect_continue = f.expect && ret->minor == 1;
	ret->upgrade = f.connection_upgrade && f.upgrade;
	return is_plain(&f, plain) ? 0 : http_cross_examine(head, true, ret, why);
}

int http_parse_response(struct str head, bool to_head_request, struct http_head *ret, const char **why)
{
	const char *p = head.p, *end = head.p + head.n;
	struct facts f = { 0 };
	bool plain;
	int r;

	if (head.n < 4 || memcmp(end - 4, "\r\n\r\n", 4) != 0)
		return refuse(why, -EBADMSG, "incomplete head");
	ret->method = ret->target = (struct str){ 0 };
	r = walk_status_line(&p, end, ret, &plain, why);
	if (r < 0)
		return r;
	r = walk_headers(p, end, ret, &plain, why);
	if (r < 0)
		return r;

	collect(ret, &f);
	r = decide_framing(ret, &f, why);
	if (r < 0)
		return r;
	ret->expect_continue = false;
	ret->upgrade = f.connection_upgrade && f.upgrade;
	r = is_plain(&f, plain) ? 0 : http_cross_examine(head, false, ret, why);
	if (r < 0)
		return r;

	if (ret->status < 200 || ret->status == 204) {
		/* No body whatever the fields say; a sender that announces one will send one. */
		if (ret->framing == HTTP_CHUNKED || ret->length)
			return refuse(why, -EBADMSG, "a body announced with a status that has none");
		ret->framing = HTTP_NO_BODY;
	} else if (to_head_request || ret->status == 304) {
		ret->framing = HTTP_NO_BODY;
	} else if (ret->framing == HTTP_NO_BODY) {
		ret->framing = HTTP_UNTIL_CLOSE;
	}
	if (ret->framing != HTTP_LENGTH)
		ret->length = 0;
	ret->keep_alive = keeps_alive(ret, &f) && ret->framing != HTTP_UNTIL_CLOSE;
	return 0;
}
