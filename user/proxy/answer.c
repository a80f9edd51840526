/* SPDX-License-Identifier: Apache-2.0
 * What the gateway answers itself. Errors are OpenAI-shaped JSON: a type, and a message that says what to do.
 */
#include <stdio.h>

#include "proxy/proxy_int.h"

static const char *reason_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} rows[] = {
		{ 200, "OK" },
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 413, "Content Too Large" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].status == status)
			return rows[i].reason;
	return "Error";
}

/* <body> in one answer; the connection goes on if <keep>. */
static void answer(struct client *c, unsigned status, const struct buf *body, const char *extra, bool head, bool keep)
{
	struct buf b = { 0 };

	if (c->w->draining)
		keep = false;
	buf_printf(&b, "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s%s\r\n", status,
		   reason_of(status), buf_len(body), extra, keep ? "" : "Connection: close\r\n");
	if (!head)
		buf_put(&b, buf_data(body), buf_len(body));
	if (!keep) {
		c->closing = true;
		c->drained = 1; /* something may be unread: linger */
	}
	if (client_send(c, buf_data(&b), buf_len(&b)))
		client_close(c, true);
	else
		client_answered(c);
	buf_free(&b);
}

void answer_error(struct client *c, unsigned status, const char *type, const char *message, unsigned retry_after_s,
		  bool keep)
{
	struct buf body = { 0 };
	char extra[48] = "";
	struct jw w;

	jw_init(&w, &body);
	jw_obj(&w);
	jw_key(&w, "error");
	jw_obj(&w);
	jw_kstr(&w, "message", message);
	jw_kstr(&w, "type", type);
	jw_key(&w, "param");
	jw_null(&w);
	jw_ku64(&w, "code", status);
	jw_end_obj(&w);
	jw_end_obj(&w);
	if (retry_after_s)
		snprintf(extra, sizeof(extra), "Retry-After: %u\r\n", retry_after_s);
	answer(c, status, &body, extra, false, keep);
	buf_free(&body);
}

static void write_model(struct jw *w, const struct route *r)
{
	bool adapter = strcmp(r->model, r->base) != 0;

	jw_obj(w);
	jw_kstr(w, "id", r->model);
	jw_kstr(w, "object", "model");
	jw_ku64(w, "created", 0);
	jw_kstr(w, "owned_by", "kvsteer");
	jw_kstr(w, "root", adapter ? r->base : r->model);
	jw_end_obj(w);
}

static unsigned write_models(struct client *c, const char *path, struct buf *body)
{
	struct proxy_shared *sh = c->w->sh;
	const char *one = path[10] == '/' ? path + 11 : NULL;
	const struct snapshot *s;
	unsigned status = 200;
	struct jw w;

	jw_init(&w, body);
	qsbr_enter(sh->qsbr, c->w->id);
	s = endpoints_snapshot(sh->endpoints);
	if (one) {
		const struct route *r = s ? snapshot_route(s, str_of(one)) : NULL;

		if (r)
			write_model(&w, r);
		else
			status = 404;
	} else {
		jw_obj(&w);
		jw_kstr(&w, "object", "list");
		jw_key(&w, "data");
		jw_arr(&w);
		for (unsigned i = 0; s && i < s->nroutes; i++)
			write_model(&w, &s->routes[i]);
		jw_end_arr(&w);
		jw_end_obj(&w);
	}
	qsbr_leave(sh->qsbr, c->w->id);
	return status;
}

static bool any_pod_up(struct client *c)
{
	struct proxy_shared *sh = c->w->sh;
	const struct snapshot *s;
	bool up = false;

	qsbr_enter(sh->qsbr, c->w->id);
	s = endpoints_snapshot(sh->endpoints);
	for (unsigned i = 0; s && i < s->npods && !up; i++)
		up = pod_usable(s->pods[i], loop_now(c->w->loop));
	qsbr_leave(sh->qsbr, c->w->id);
	return up;
}

bool answer_local(struct client *c, const struct http_head *h, const char *path)
{
	bool models = str_starts(str_of(path), STR("/v1/models")) && (path[10] == '\0' || path[10] == '/');
	bool health = str_eq(str_of(path), STR("/health")) || str_eq(str_of(path), STR("/ping"));
	bool head = str_eq(h->method, STR("HEAD"));
	bool keep = h->keep_alive && (h->framing == HTTP_NO_BODY || (h->framing == HTTP_LENGTH && h->length == 0));
	struct buf body = { 0 };

	if (!models && !health)
		return false;
	if (!head && !str_eq(h->method, STR("GET"))) {
		answer_error(c, 405, "invalid_request_error", "Only GET and HEAD are served here.", 0, keep);
	} else if (health) {
		if (any_pod_up(c))
			answer(c, 200, &body, "", head, keep);
		else
			answer_error(c, 503, "overloaded_error", "No pod is up.", 1, keep);
	} else if (write_models(c, path, &body) == 200) {
		answer(c, 200, &body, "", head, keep);
	} else {
		answer_error(c, 404, "NotFoundError", "No pod serves this model. GET /v1/models lists what there is.",
			     0, keep);
	}
	buf_free(&body);
	return true;
}
