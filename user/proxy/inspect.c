/* SPDX-License-Identifier: Apache-2.0
 *
 * One walk over the body while it arrives: what steers it is read, the rest is skipped and validated.
 *
 * Completions: the text is the prompt itself, as the engine tokenizes it. Chat, Anthropic's messages, OpenAI's
 * responses: the text is a canonical form of the messages, which is equal where the messages are equal; it matches what
 * this gateway has sent before, not what engines announce. Where the model's template is known, render.c makes the text
 * when the body is whole; so where every pool has a template, the form is gathered only when it turns out that there is
 * no such text, in a second walk.
 *
 * Tokens are told apart by their level, the number of containers around them: members of the body stand at level 1,
 * the prompts or messages of a list at level 2, the members of a message at level 3.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "proxy/proxy_int.h"

/* Marks of the canonical form: control bytes, which cannot stand unescaped in JSON text. */
#define MARK_MESSAGE "\x01"
#define MARK_MEMBER  "\x02"
#define MARK_RAW     "\x03"
#define MARK_NAME    "\x04"

#define HASH_AT	   4096	       /* bytes that have gathered: few calls, and all of them still near */
#define EARLY_MIN  (48u << 10) /* text that decides early; twice as much at each further try */
#define EXPECT_MAX (1u << 20)  /* room taken for a prompt at once; what a client announces is not believed further */

enum {
	OTHER,
	STREAM,
	LONG_TAIL,
	LOGPROBS,
	COUNT,
	PART,
	MODEL,
	SALT,
	SPECIAL,
	PROMPT,
	MESSAGES,
	TOOLS,
	STATE,
	FORBIDDEN,
	CARRIER, /* engines take forbidden members out of it too */
};
enum {
	COMPLETION = 1 << API_COMPLETIONS,
	CHAT = 1 << API_CHAT,
	MESSAGE = 1 << API_MESSAGES,
	RESPONSE = 1 << API_RESPONSES,
	ALL = 0xff,
};

static const struct {
	struct str name;
	uint8_t member;
	uint8_t kinds; /* of bodies that have it */
} members[] = {
	{ STR("model"), MODEL, ALL },
	{ STR("prompt"), PROMPT, COMPLETION },
	{ STR("messages"), MESSAGES, CHAT | MESSAGE },
	{ STR("system"), MESSAGES, MESSAGE },
	{ STR("input"), MESSAGES, RESPONSE },
	{ STR("instructions"), MESSAGES, RESPONSE },
	{ STR("previous_response_id"), STATE, RESPONSE },
	{ STR("stream"), STREAM, ALL },
	{ STR("tools"), TOOLS, ALL },
	{ STR("cache_salt"), SALT, ALL },
	{ STR("add_special_tokens"), SPECIAL, COMPLETION | CHAT },
	{ STR("return_token_ids"), LONG_TAIL, ALL },
	{ STR("prompt_logprobs"), LOGPROBS, ALL },
	{ STR("n"), COUNT, ALL },
	{ STR("best_of"), COUNT, ALL },
	{ STR("use_beam_search"), PART, ALL },
	{ STR("echo"), PART, ALL },
	{ STR("truncate_prompt_tokens"), PART, ALL },
	{ STR("kv_transfer_params"), FORBIDDEN, ALL },
	{ STR("bootstrap_host"), FORBIDDEN, ALL },
	{ STR("bootstrap_port"), FORBIDDEN, ALL },
	{ STR("bootstrap_room"), FORBIDDEN, ALL },
	{ STR("disaggregated_params"), FORBIDDEN, ALL },
	{ STR("ec_transfer_params"), FORBIDDEN, ALL },
	{ STR("vllm_xargs"), CARRIER, ALL },
	{ STR("sampling_params"), CARRIER, ALL },
	{ STR("extra_args"), CARRIER, ALL },
};

static bool all_have_templates(const struct proxy_shared *sh)
{
	for (unsigned i = 0; i < sh->cfg->npools; i++)
		if (!sh->pools[i].chat)
			return false;
	return true;
}

struct inspection *inspection_new(struct worker *w, enum api_kind kind, uint64_t expect)
{
	struct inspection *in = zalloc(sizeof(*in));

	if (!in)
		return NULL;
	in->w = w;
	in->kind = kind;
	/* Templates write them themselves; that of a response gets them all the same. */
	in->special = kind == API_COMPLETIONS || kind == API_RESPONSES;
	in->unread = api_is_chat(kind) && all_have_templates(w->sh);
	in->early_at = EARLY_MIN;
	in->expect = expect < EXPECT_MAX ? (size_t)expect : EXPECT_MAX;
	json_start(&in->json);
	return in;
}

void inspection_free(struct inspection *in)
{
	if (!in)
		return;
	prompt_end(in->w, &in->prompt);
	free(in);
}

void inspection_forget_text(struct inspection *in)
{
	prompt_end(in->w, &in->prompt);
	in->json.into = NULL;
	in->no_text = true;
}

static int begin_text(struct inspection *in)
{
	const struct proxy_pool *pool = &in->w->sh->pools[0];
	bool exact = in->kind == API_COMPLETIONS;

	in->exact = exact;
	in->ids = false;
	in->lone = false;
	in->ids_to = 0;
	in->items = 0;
	if (in->no_text || in->unread)
		return 0;
	/* Which pool it will be is known with the model, which may come later: prompt_set_prefix mends it. */
	return prompt_start(in->w, &in->prompt,
			    exact && pool->vocab ? vocab_prefix(pool->vocab) : (struct str){ NULL, 0 }, in->expect);
}

static int put(struct inspection *in, const char *p, size_t n)
{
	return in->no_text || in->unread ? 0 : buf_put(&in->prompt.text, p, n);
}

/* The value that comes is text, if it is a string. */
static void copy_next(struct inspection *in)
{
	in->json.into = in->no_text || in->unread ? NULL : &in->prompt.text;
}

static int member_key(struct inspection *in, const struct json_val *key)
{
	int e = 0;

	in->member = OTHER;
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (members[i].kinds >> in->kind & 1 && json_str_is(key, members[i].name)) {
			in->member = members[i].member;
			in->name = members[i].name.p;
			in->late |=
				in->decided && (in->member == MODEL || in->member == SALT || in->member == SPECIAL ||
						in->member == PROMPT || in->member == MESSAGES);
			break;
		}
	if (in->member != PROMPT && in->member != MESSAGES)
		return 0;
	if (in->member == PROMPT || in->kind == API_CHAT || !in->prompt.text.len)
		e = begin_text(in);
	/* Of the other kinds several members make the text, each marked by its name. */
	if (in->member == MESSAGES && in->kind != API_CHAT)
		e = e ? e : put(in, MARK_NAME, 1) ? -ENOMEM : put(in, in->name, strlen(in->name));
	if (in->kind != API_CHAT)
		copy_next(in);
	return e;
}

/* False, and an empty string: it does not fit, or is none of C. */
static bool copy_short(const struct json_val *v, char *out, size_t cap)
{
	struct buf b = { 0 };
	bool ok = v->kind == JSON_T_STR && v->raw.n < 8 * cap && json_unescape(v, &b) == 0 && buf_len(&b) < cap &&
		  !(b.len && memchr(b.mem, '\0', b.len));

	if (ok && b.len)
		memcpy(out, b.mem, b.len);
	out[ok ? b.len : 0] = '\0';
	buf_free(&b);
	return ok;
}

static bool is_container(const struct json_val *v)
{
	return v->kind == JSON_T_OBJ || v->kind == JSON_T_ARR;
}

static size_t offset_of(const struct inspection *in, const struct json_val *v)
{
	return (size_t)(v->raw.p - in->json.text);
}

/* null, false, or the end of something. */
static bool is_not_set(const struct json_val *v)
{
	return v->kind == JSON_T_NULL || v->kind == JSON_T_FALSE || v->kind == JSON_T_CLOSE;
}

static int member_value(struct inspection *in, const struct json_val *v)
{
	uint64_t n;

	switch (in->member) {
	case MODEL:
		copy_short(v, in->model, sizeof(in->model));
		break;
	case SALT:
		in->salt_unknown = !copy_short(v, in->salt, sizeof(in->salt)) && v->kind != JSON_T_NULL;
		break;
	case STREAM:
		in->stream |= !is_not_set(v);
		break;
	case LOGPROBS: /* engines compute all of such a prompt */
		in->several |= !is_not_set(v);
		in->long_tail |= !is_not_set(v);
		break;
	case LONG_TAIL:
		in->long_tail |= !is_not_set(v);
		break;
	case COUNT:
		in->several |= v->kind == JSON_T_NUM && (json_u64(v, &n) || n > 1);
		break;
	case PART:
		in->several |= !is_not_set(v);
		break;
	case SPECIAL:
		in->special = in->kind == API_CHAT ? v->kind == JSON_T_TRUE : v->kind != JSON_T_FALSE;
		break;
	case TOOLS:
		/* An empty list is none to a response: take() sees what is in it. */
		in->tools = in->kind == API_RESPONSES ? v->kind == JSON_T_CLOSE && in->tools : v->kind != JSON_T_NULL;
		break;
	case STATE:
		in->state = v->kind != JSON_T_NULL;
		break;
	case FORBIDDEN:
		if (v->kind != JSON_T_NULL && v->kind != JSON_T_CLOSE)
			in->forbidden = in->name;
		break;
	case MESSAGES:
		in->some |= v->kind == JSON_T_STR && in->kind != API_CHAT;
		break;
	case PROMPT:
		if (v->kind == JSON_T_ARR) {
			copy_next(in);
			in->ids_from = offset_of(in, v);
		} else if (v->kind == JSON_T_CLOSE && in->ids && !in->ids_to) {
			in->ids_to = in->json.at;
		}
		break;
	}
	return 0;
}

/* Inside of a member whose content the engine takes for parameters of its own. */
static int carried(struct inspection *in, const struct json_val *v)
{
	if (in->inner && v->kind != JSON_T_NULL)
		in->forbidden = in->inner;
	in->inner = NULL;
	for (size_t i = 0; v->kind == JSON_T_KEY && i < sizeof(members) / sizeof(members[0]); i++)
		if (members[i].member == FORBIDDEN && json_str_is(v, members[i].name))
			in->inner = members[i].name.p;
	return 0;
}

/* string | [string, …] | [int, …] | [[int, …], …]: of several prompts the first one steers. */
static int prompt_item(struct inspection *in, const struct json_val *v)
{
	if (in->json.stack[2] != JSON_T_ARR)
		return 0;
	if (v->kind == JSON_T_CLOSE) {
		if (in->items == 1 && in->ids && !in->ids_to)
			in->ids_to = in->json.at;
		return 0;
	}
	in->items += v->kind != JSON_T_PART;
	if (in->items > 1) {
		in->several |= v->kind != JSON_T_NUM;
		return 0;
	}
	if (v->kind == JSON_T_ARR)
		in->ids_from = offset_of(in, v);
	in->ids = v->kind == JSON_T_NUM || v->kind == JSON_T_ARR;
	in->ids_to = 0;
	return 0;
}

static int message_member(struct inspection *in, const struct json_val *v)
{
	int e = 0;

	switch (v->kind) {
	case JSON_T_KEY:
		copy_next(in);
		e |= put(in, MARK_MEMBER, 1);
		e |= put(in, v->raw.p, v->raw.n);
		e |= put(in, MARK_RAW, 1);
		return e ? -ENOMEM : 0;
	case JSON_T_STR:
	case JSON_T_PART:
		return 0; /* has been copied */
	case JSON_T_OBJ:
	case JSON_T_ARR:
		in->raw_from = offset_of(in, v);
		return 0;
	case JSON_T_CLOSE:
		return put(in, in->json.text + in->raw_from, in->json.at - in->raw_from);
	default:
		return put(in, v->raw.p, v->kind == JSON_T_NUM ? v->raw.n : v->kind == JSON_T_FALSE ? 5 : 4);
	}
}

static int take(struct inspection *in, const struct json_val *v)
{
	unsigned level = in->json.depth - is_container(v);

	if (level == 1 && in->json.stack[1] == JSON_T_OBJ)
		return v->kind == JSON_T_KEY ? member_key(in, v) : member_value(in, v);
	if (in->member == CARRIER)
		return carried(in, v);
	if (in->member == PROMPT && level == 2)
		return prompt_item(in, v);
	if (in->member == TOOLS && level == 2)
		in->tools = true;
	if (in->member != MESSAGES || level < 2 || in->json.stack[2] != JSON_T_ARR)
		return 0;
	if (level == 2 && v->kind == JSON_T_OBJ) {
		in->some = true;
		return put(in, MARK_MESSAGE, 1);
	}
	if (level == 3 && in->json.stack[3] == JSON_T_OBJ)
		return message_member(in, v);
	return 0;
}

void inspection_feed(struct inspection *in, struct str body, bool whole)
{
	struct json_val v;
	int r = in->err;

	/* Also behind an error: inspection_suspicious looks at all of it, and the body has moved since. */
	json_feed(&in->json, body, whole);
	if (r)
		return;
	while (r == 0 && (r = json_next(&in->json, &v)) > 0) {
		r = take(in, &v);
		if (v.kind == JSON_T_STR)
			in->lone |= v.lone;
		if (r == 0 && in->prompt.text.len - in->prompt.hash.bytes >= HASH_AT)
			r = prompt_hash(in->w, &in->prompt);
	}
	if (r == 0 && in->prompt.text.len > in->prompt.hash.bytes)
		r = prompt_hash(in->w, &in->prompt);
	in->err = r;
	in->whole = r == 0 && whole;
	if (r) /* a text behind an error is no prefix to trust */
		inspection_forget_text(in);
}

int inspection_gather(struct inspection *in)
{
	struct str body = { in->json.text, in->json.n };

	in->unread = false;
	json_start(&in->json);
	inspection_feed(in, body, true);
	return in->err;
}

bool inspection_may_be_early(struct inspection *in)
{
	if (in->err || in->no_text || in->lone || in->state || in->salt_unknown || in->prompt.text.len < in->early_at)
		return false;
	in->early_at = 2 * in->prompt.text.len;
	return true;
}

void inspection_judge(struct inspection *in)
{
	bool text = in->unread ? in->some && !in->no_text : in->prompt.text.len > in->prompt.prefix;

	in->opaque = !in->whole || in->lone || in->state || in->salt_unknown || (!text && !in->ids);
	in->why = in->kind == API_OTHER || in->json.n == 0 ? STATS_OPAQUE_KIND
		  : in->err				   ? STATS_OPAQUE_JSON
		  : !in->whole				   ? STATS_OPAQUE_PARTIAL
		  : in->state				   ? STATS_OPAQUE_STATE
		  : in->salt_unknown			   ? STATS_OPAQUE_SALT
							   : STATS_OPAQUE_KIND;
}

/* Engines' parsers take more than JSON (NaN, UTF-16), so where ours has given up the names are looked for as bytes: as
 * they are, with letters escaped, or in an encoding of wider characters. */
bool inspection_suspicious(const struct inspection *in)
{
	const char *p = in->json.text, *end = p + in->json.n;

	if (!in->err || in->json.n == 0)
		return false;
	if (memchr(p, '\0', in->json.n))
		return true;
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (members[i].member == FORBIDDEN && memmem(p, in->json.n, members[i].name.p, members[i].name.n))
			return true;
	while ((p = memmem(p, (size_t)(end - p), "\\u00", 4))) {
		p += 4;
		if (p < end && *p >= '4' && *p <= '7')
			return true;
	}
	return false;
}

int inspection_read_ids(struct inspection *in, const struct vocab *v)
{
	struct json_val e;
	struct json j;
	uint32_t id;
	uint64_t n;
	int r;

	r = prompt_start(in->w, &in->prompt, (struct str){ NULL, 0 }, 4 * (in->ids_to - in->ids_from));
	if (r)
		return r;
	json_init(&j, (struct str){ in->json.text + in->ids_from, in->ids_to - in->ids_from });
	r = json_value(&j, &e);
	if (r)
		return r;
	while ((r = json_element(&j, &e)) > 0) {
		r = json_u64(&e, &n);
		if (r || n > UINT32_MAX)
			return -ERANGE;
		id = (uint32_t)n;
		r = vocab_text(v, &id, 1, &in->prompt.text);
		if (r)
			return r;
		in->id_count++;
	}
	return r ? r : prompt_hash(in->w, &in->prompt);
}
