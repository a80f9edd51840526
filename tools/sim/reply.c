/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>

#include "base/jw.h"
#include "base/time.h"
#include "sim.h"

static const char *reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} rows[] = { { 200, "OK" },
		     { 400, "Bad Request" },
		     { 401, "Unauthorized" },
		     { 403, "Forbidden" },
		     { 404, "Not Found" },
		     { 405, "Method Not Allowed" },
		     { 429, "Too Many Requests" },
		     { 500, "Internal Server Error" },
		     { 503, "Service Unavailable" } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].status == status)
			return rows[i].text;
	return "Unknown";
}

static const char *date(void)
{
	static char text[40];
	static time_t at;
	time_t now = time(NULL);
	struct tm tm;

	if (now != at) {
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		at = now;
	}
	return text;
}

void random_hex(struct pod *p, char *out, unsigned digits)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < digits; i++) {
		if (i % 16 == 0)
			v = rng_next(&p->rng);
		out[i] = "0123456789abcdef"[v & 15];
		v >>= 4;
	}
	out[digits] = 0;
}

void head_start(struct buf *b, const struct conn *c, unsigned status)
{
	buf_printf(b, "HTTP/1.1 %u %s\r\ndate: %s\r\nserver: uvicorn\r\n", status, reason(status), date());
}

void head_end(struct buf *b, const struct conn *c, const char *request_id, bool chunked)
{
	buf_puts(b, "vary: Origin\r\n");
	if (request_id && c->pod->o.request_id_headers)
		buf_printf(b, "x-request-id: %s\r\n", request_id);
	if (chunked)
		buf_puts(b, "transfer-encoding: chunked\r\n");
	if (c->close_after)
		buf_puts(b, "connection: close\r\n");
	buf_puts(b, "\r\n");
}

static void send_reply(const struct request *r, unsigned status, const char *type, const char *allow, struct str body)
{
	struct conn *c = r->c;
	struct buf *b = &c->pod->sim->scratch;
	bool to_head = r->head && str_eq(r->head->method, STR("HEAD"));
	struct iovec v[2];

	buf_consume(b, buf_len(b));
	head_start(b, c, status);
	if (allow)
		buf_printf(b, "allow: %s\r\n", allow);
	buf_printf(b, "content-length: %zu\r\n", body.n);
	if (type)
		buf_printf(b, "content-type: %s\r\n", type);
	head_end(b, c, r->head ? r->id : NULL, false);
	v[0] = (struct iovec){ buf_data(b), buf_len(b) };
	v[1] = (struct iovec){ (void *)(uintptr_t)body.p, body.n };
	conn_sendv(c, v, to_head || !body.n ? 1 : 2);
	conn_done(c);
}

void reply(const struct request *r, unsigned status, const char *type, struct str body)
{
	send_reply(r, status, type, NULL, body);
}

void reply_method(const struct request *r, const char *allow)
{
	send_reply(r, 405, "application/json", allow, STR("{\"detail\":\"Method Not Allowed\"}"));
}

void reply_json(const struct request *r, unsigned status, json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);

	reply(r, status, "application/json", str_of(text ? text : "{}"));
	free(text);
	json_decref(j);
}

void reply_error(const struct request *r, unsigned status, const char *type, const char *param, const char *fmt, ...)
{
	struct buf b = { 0 }, msg = { 0 };
	struct jw w;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&msg, fmt, ap);
	va_end(ap);
	jw_init(&w, &b);
	jw_obj(&w);
	jw_key(&w, "error");
	jw_obj(&w);
	jw_key(&w, "message");
	jw_strn(&w, buf_str(&msg));
	jw_kstr(&w, "type", type);
	jw_kstr(&w, "param", param);
	jw_ku64(&w, "code", status);
	jw_end_obj(&w);
	jw_end_obj(&w);
	reply(r, status, "application/json", buf_str(&b));
	buf_free(&b);
	buf_free(&msg);
}
