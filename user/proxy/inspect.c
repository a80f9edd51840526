/* SPDX-License-Identifier: Apache-2.0
 *
 * One walk over the body: what steers it is read, the rest is skipped and validated.
 *
 * Completions: the text is the prompt itself, as the engine tokenizes it. Chat: until templates are rendered, the text
 * is a canonical form of the messages, which is equal where the messages are equal; it matches what this gateway has
 * sent before, not what engines announce.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "http/json.h"
#include "proxy/proxy_int.h"

/* Marks of the canonical form: control bytes, which cannot stand unescaped in JSON text. */
#define MARK_MESSAGE "\x01"
#define MARK_MEMBER  "\x02"
#define MARK_RAW     "\x03"

static const struct {
	const char *path;
	enum api_kind kind;
} apis[] = {
	{ "/v1/completions", API_COMPLETIONS },
	{ "/v1/chat/completions", API_CHAT },
	{ "/v1/embeddings", API_OTHER },
	{ "/v1/responses", API_OTHER },
	{ "/v1/messages", API_OTHER },
	{ "/v1/messages/count_tokens", API_OTHER },
	{ "/v1/rerank", API_OTHER },
	{ "/v2/rerank", API_OTHER },
	{ "/rerank", API_OTHER },
	{ "/v1/score", API_OTHER },
	{ "/score", API_OTHER },
	{ "/v1/audio/transcriptions", API_OTHER },
	{ "/v1/audio/translations", API_OTHER },
	{ "/v1/audio/speech", API_OTHER },
	{ "/v1/images/generations", API_OTHER },
	{ "/v1/completions/render", API_OTHER },
	{ "/v1/chat/completions/render", API_OTHER },
	{ "/tokenize", API_OTHER },
	{ "/detokenize", API_OTHER },
	{ "/pooling", API_OTHER },
	{ "/classify", API_OTHER },
	{ "/invocations", API_OTHER },
	{ "/generate", API_OTHER },
	{ "/inference/v1/generate", API_OTHER },
};

#define NAPIS (sizeof(apis) / sizeof(apis[0]))

enum api_kind api_kind_of(const char *path)
{
	for (size_t i = 0; i < NAPIS; i++)
		if (strcmp(apis[i].path, path) == 0)
			return apis[i].kind;
	return API_OTHER;
}

bool api_path_allowed(const struct config_listener *ls, const char *path)
{
	for (size_t i = 0; i < NAPIS; i++)
		if (strcmp(apis[i].path, path) == 0)
			return true;
	for (unsigned i = 0; i < ls->nallow; i++)
		if (strcmp(ls->allow[i], path) == 0)
			return true;
	return strncmp(path, "/v1/responses/", 14) == 0;
}

static void copy_short(const struct json_val *v, char *out, size_t cap, struct buf *scratch)
{
	size_t at = scratch->len;

	if (v->kind != JSON_T_STR || json_unescape(v, scratch))
		return;
	if (scratch->len - at < cap) {
		memcpy(out, scratch->mem + at, scratch->len - at);
		out[scratch->len - at] = '\0';
	}
	scratch->len = at;
}

static const struct str forbidden[] = {
	{ "kv_transfer_params", 18 }, { "bootstrap_host", 14 },	      { "bootstrap_port", 14 },
	{ "bootstrap_room", 14 },     { "disaggregated_params", 20 }, { "ec_transfer_params", 18 },
};

static bool is_forbidden(const struct json_val *k, const struct json_val *v, char out[32])
{
	if (v->kind == JSON_T_NULL)
		return false;
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		if (json_str_is(k, forbidden[i])) {
			snprintf(out, 32, "%s", forbidden[i].p);
			return true;
		}
	return false;
}

/* string | [string, …] | [int, …] | [[int, …], …]: of several prompts the first one steers. */
static int read_prompt(struct json *j, const struct json_val *v, struct worker *w, struct inspection *in)
{
	struct json_val e, inner;
	const char *start = v->raw.p;
	int r;

	if (v->kind == JSON_T_STR)
		return json_unescape(v, &w->text);
	if (v->kind != JSON_T_ARR)
		return json_skip(j, v, NULL);
	r = json_element(j, &e);
	if (r <= 0)
		return r;
	if (e.kind == JSON_T_STR) {
		r = json_unescape(&e, &w->text);
		if (r)
			return r;
	} else if (e.kind == JSON_T_NUM) {
		in->ids = true;
	} else if (e.kind == JSON_T_ARR) {
		r = json_skip(j, &e, &in->ids_raw);
		if (r)
			return r;
		in->ids = true;
	} else if (e.kind == JSON_T_OBJ) {
		r = json_skip(j, &e, NULL);
		if (r)
			return r;
	}
	while ((r = json_element(j, &inner)) > 0)
		if (json_skip(j, &inner, NULL))
			return -EBADMSG;
	if (r == 0 && in->ids && !in->ids_raw.p)
		in->ids_raw = (struct str){ start, (size_t)(j->p - start) };
	return r;
}

static int canonical_message(struct json *j, struct buf *t)
{
	struct json_val k, v;
	struct str raw;
	int r;

	if (buf_put(t, MARK_MESSAGE, 1))
		return -ENOMEM;
	while ((r = json_member(j, &k, &v)) > 0) {
		if (buf_put(t, MARK_MEMBER, 1) || buf_put(t, k.raw.p, k.raw.n) || buf_put(t, MARK_RAW, 1))
			return -ENOMEM;
		if (v.kind == JSON_T_STR) {
			r = json_unescape(&v, t);
		} else {
			raw = v.raw;
			r = json_skip(j, &v, &raw);
			if (!r)
				r = buf_put(t, raw.p, raw.n);
		}
		if (r)
			return r;
	}
	return r;
}

static int read_messages(struct json *j, const struct json_val *v, struct worker *w)
{
	struct json_val e;
	int r;

	if (v->kind != JSON_T_ARR)
		return json_skip(j, v, NULL);
	while ((r = json_element(j, &e)) > 0) {
		r = e.kind == JSON_T_OBJ ? canonical_message(j, &w->text) : json_skip(j, &e, NULL);
		if (r)
			return r;
	}
	return r;
}

static int read_member(struct json *j, const struct json_val *k, const struct json_val *v, enum api_kind kind,
		       struct worker *w, struct inspection *in)
{
	if (is_forbidden(k, v, in->forbidden))
		return json_skip(j, v, NULL);
	if (json_str_is(k, STR("model"))) {
		copy_short(v, in->model, sizeof(in->model), &w->text);
	} else if (json_str_is(k, STR("cache_salt"))) {
		copy_short(v, in->salt, sizeof(in->salt), &w->text);
	} else if (json_str_is(k, STR("stream"))) {
		in->stream = v->kind == JSON_T_TRUE;
	} else if (json_str_is(k, STR("add_special_tokens"))) {
		in->special = v->kind != JSON_T_FALSE;
	} else if (kind == API_COMPLETIONS && json_str_is(k, STR("prompt"))) {
		w->text.len = w->text.off;
		in->ids = false;
		in->ids_raw = (struct str){ NULL, 0 };
		in->exact = true;
		return read_prompt(j, v, w, in);
	} else if (kind == API_CHAT && json_str_is(k, STR("messages"))) {
		w->text.len = w->text.off;
		return read_messages(j, v, w);
	}
	return json_skip(j, v, NULL);
}

void inspect(struct worker *w, enum api_kind kind, struct str body, bool whole, struct inspection *ret)
{
	struct json_val k, v;
	struct json j;
	int r;

	*ret = (struct inspection){ .special = true };
	w->text.off = w->text.len = 0;
	if (body.n == 0) {
		ret->opaque = true;
		ret->why = STATS_OPAQUE_KIND;
		return;
	}
	json_init(&j, body);
	r = json_value(&j, &v);
	if (r == 0 && v.kind == JSON_T_OBJ) {
		while ((r = json_member(&j, &k, &v)) > 0) {
			r = read_member(&j, &k, &v, kind, w, ret);
			if (r)
				break;
		}
		if (r == 0)
			r = json_end(&j);
	}
	ret->whole = r == 0 && whole;
	ret->text = buf_str(&w->text);
	ret->opaque = ret->text.n == 0 && !ret->ids;
	ret->why = kind == API_OTHER ? STATS_OPAQUE_KIND
		   : !whole	     ? STATS_OPAQUE_PARTIAL
		   : r		     ? STATS_OPAQUE_JSON
				     : STATS_OPAQUE_KIND;
	if (r) /* a part of a text, or text behind an error, is no prefix to trust */
		ret->opaque = true;
}

int inspect_ids(struct worker *w, const struct vocab *v, struct inspection *in)
{
	struct json_val e;
	struct json j;
	uint32_t id;
	uint64_t n;
	int r;

	w->text.off = w->text.len = 0;
	json_init(&j, in->ids_raw);
	r = json_value(&j, &e);
	if (r)
		return r;
	while ((r = json_element(&j, &e)) > 0) {
		r = json_u64(&e, &n);
		if (r || n > UINT32_MAX)
			return -ERANGE;
		id = (uint32_t)n;
		r = vocab_text(v, &id, 1, &w->text);
		if (r)
			return r;
		in->id_count++;
	}
	in->text = buf_str(&w->text);
	return r;
}
