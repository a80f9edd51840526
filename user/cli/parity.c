/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/parity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void parity_escape(const char *p, size_t n, char *out, size_t cap)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		char one[8];
		int len;

		if (c == '\n' || c == '\t' || c == '\r')
			len = snprintf(one, sizeof(one), "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
		else if (c == '\\' || c == '"')
			len = snprintf(one, sizeof(one), "\\%c", c);
		else
			len = snprintf(one, sizeof(one), c < ' ' || c >= 0x7f ? "\\x%02x" : "%c", c);
		if (at + (size_t)len >= cap)
			break;
		memcpy(out + at, one, (size_t)len);
		at += (size_t)len;
	}
	out[at] = '\0';
}

json_t *parity_chat_body(struct str request, const char *model)
{
	static const char *const keys[] = { "messages",		  "tools",
					    "documents",	  "add_generation_prompt",
					    "add_special_tokens", "continue_final_message",
					    "chat_template",	  "chat_template_kwargs" };
	json_t *in = json_loadb(request.p, request.n, JSON_ALLOW_NUL, NULL), *out = NULL;

	if (json_is_object(in) && json_object_get(in, "messages")) {
		out = json_object();
		json_object_set_new(out, "model", json_string(model));
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (json_object_get(in, keys[i]))
				json_object_set(out, keys[i], json_object_get(in, keys[i]));
	}
	json_decref(in);
	return out;
}

static void unknown(struct parity_result *r, const char *fmt, const char *what)
{
	r->is = PARITY_UNKNOWN;
	snprintf(r->why, sizeof(r->why), fmt, what);
}

/* The message of an error as engines write it, else the body's beginning. */
static void error_of(const struct web_answer *a, char *out, size_t cap)
{
	json_t *j = json_loadb(buf_data(&a->body), buf_len(&a->body), 0, NULL);
	const json_t *e = json_object_get(j, "error");
	const char *m = json_string_value(json_object_get(json_is_object(e) ? e : j, "message"));

	if (m)
		snprintf(out, cap, "%s", m);
	else
		parity_escape(buf_data(&a->body), buf_len(&a->body), out, cap);
	json_decref(j);
}

/* The ids of an answer; false: it has none. */
static bool read_ids(const struct web_answer *a, struct buf *ids)
{
	json_t *j = json_loadb(buf_data(&a->body), buf_len(&a->body), 0, NULL);
	const json_t *list = json_object_get(j, "tokens"), *v;
	bool ok = json_is_array(list);
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)list, i, v)
	{
		uint32_t id = (uint32_t)json_integer_value(v);

		ok = ok && json_is_integer(v) && buf_put(ids, &id, sizeof(id)) == 0;
	}
	json_decref(j);
	return ok;
}

static const uint32_t *ids_of(const struct buf *b)
{
	return (const uint32_t *)(const void *)buf_data(b);
}

static void differ_at(struct parity_result *r, struct str ours, struct str theirs, size_t at)
{
	r->is = PARITY_DIFFERS;
	r->place = true;
	r->byte = at;
	parity_escape(ours.p + at, at < ours.n ? ours.n - at : 0, r->ours_text, sizeof(r->ours_text));
	parity_escape(theirs.p + at, at < theirs.n ? theirs.n - at : 0, r->theirs_text, sizeof(r->theirs_text));
}

static size_t common(struct str a, struct str b)
{
	size_t n = a.n < b.n ? a.n : b.n, i = 0;

	while (i < n && a.p[i] == b.p[i])
		i++;
	return i;
}

/* Ids against ids: the byte is that of the first token that differs, in the text up to there. */
static void compare_ids(struct vocab *v, const struct buf *ours, const struct buf *theirs, struct parity_result *r)
{
	size_t n = buf_len(ours) / 4, m = buf_len(theirs) / 4, i = 0;
	struct buf a = { 0 }, b = { 0 }, before = { 0 };

	r->ids = true;
	r->ours = n;
	r->theirs = m;
	while (i < n && i < m && ids_of(ours)[i] == ids_of(theirs)[i])
		i++;
	if (i == n && i == m)
		return;
	r->token = i;
	if (vocab_text(v, ids_of(ours), n, &a) || vocab_text(v, ids_of(ours), i, &before)) {
		unknown(r, "%s", "no memory");
	} else if (vocab_text(v, ids_of(theirs), m, &b)) {
		r->is = PARITY_DIFFERS;
		snprintf(r->why, sizeof(r->why), "the pod has ids that are not in this vocabulary of %u",
			 vocab_size(v));
	} else if (str_eq(buf_str(&a), buf_str(&b))) {
		differ_at(r, buf_str(&a), buf_str(&b), buf_len(&before));
	} else {
		differ_at(r, buf_str(&a), buf_str(&b), common(buf_str(&a), buf_str(&b)));
	}
	buf_free(&a);
	buf_free(&b);
	buf_free(&before);
}

static void compare_texts(struct vocab *v, struct str ours, const struct buf *theirs, struct parity_result *r)
{
	struct buf b = { 0 };

	r->theirs = buf_len(theirs) / 4;
	if (vocab_text(v, ids_of(theirs), r->theirs, &b)) {
		r->is = PARITY_DIFFERS;
		snprintf(r->why, sizeof(r->why), "the pod has ids that are not in this vocabulary of %u",
			 vocab_size(v));
	} else if (!str_eq(ours, buf_str(&b))) {
		differ_at(r, ours, buf_str(&b), common(ours, buf_str(&b)));
	}
	buf_free(&b);
}

static void compare(struct vocab *v, const struct parity_ours *ours, const struct buf *theirs, struct parity_result *r)
{
	struct encoder *e = encoder_new(v);
	struct buf ids = { 0 }, text = { 0 };
	struct str prefix = ours->special ? vocab_prefix(v) : (struct str){ NULL, 0 };

	if (e && encoder_encode(e, ours->text, ours->special, &ids) == 0)
		compare_ids(v, &ids, theirs, r);
	else if (buf_put(&text, prefix.p, prefix.n) || buf_put(&text, ours->text.p, ours->text.n))
		unknown(r, "%s", "no memory");
	else
		compare_texts(v, buf_str(&text), theirs, r);
	encoder_free(e);
	buf_free(&ids);
	buf_free(&text);
}

void parity_check(struct web *w, const char *base, json_t *body, struct vocab *v, const struct parity_ours *ours,
		  struct parity_result *ret)
{
	char *json = body ? json_dumps(body, JSON_COMPACT) : NULL, url[512], why[300];
	struct web_answer a = { 0 };
	struct buf theirs = { 0 };

	memset(ret, 0, sizeof(*ret));
	json_decref(body);
	snprintf(url, sizeof(url), "%.400s/tokenize", base);
	if (!json) {
		unknown(ret, "%s", "no chat request, or no memory");
	} else if (web_ask(w, url, json, &a)) {
		if (!read_ids(&a, &theirs))
			unknown(ret, "%s", "what /tokenize answers has no list of tokens");
		else if (ours->refused) {
			ret->is = PARITY_DIFFERS;
			snprintf(ret->why, sizeof(ret->why), "the pod takes it, while here: %s", ours->refused);
		} else
			compare(v, ours, &theirs, ret);
	} else if (a.status == 0) {
		unknown(ret, "it does not answer: %s", a.error);
	} else if (a.status == 404 || a.status == 405) {
		unknown(ret, "%s", "it has no /tokenize");
	} else {
		error_of(&a, why, sizeof(why));
		ret->is = a.status != 400 ? PARITY_UNKNOWN : ours->refused ? PARITY_SAME : PARITY_DIFFERS;
		snprintf(ret->why, sizeof(ret->why), "the pod refuses it (%ld): %s", a.status, why);
	}
	free(json);
	buf_free(&a.body);
	buf_free(&theirs);
}

void parity_say(const struct parity_result *r, char *out, size_t cap)
{
	if (r->is == PARITY_SAME && !r->why[0])
		snprintf(out, cap, r->ids ? "the same %zu tokens" : "the same text (%zu tokens)", r->theirs);
	else if (!r->place)
		snprintf(out, cap, "%s", r->why);
	else if (r->ids)
		snprintf(out, cap, "parts at byte %zu, token %zu of %zu (here) and %zu: here \"%s\", the pod \"%s\"",
			 r->byte, r->token, r->ours, r->theirs, r->ours_text, r->theirs_text);
	else
		snprintf(out, cap, "parts at byte %zu: here \"%s\", the pod \"%s\"", r->byte, r->ours_text,
			 r->theirs_text);
}
