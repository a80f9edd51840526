/* SPDX-License-Identifier: Apache-2.0
 *
 * What a request asks, checked in vLLM's order and refused in its words.
 */
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "base/jw.h"
#include "base/time.h"
#include "sim.h"

#define SEQS_MAX 256

json_t *api_body(const struct request *r)
{
	struct str type = http_header_get(r->head, STR("content-type"));
	json_error_t e;
	json_t *j;

	if (type.n < 16 || strncasecmp(type.p, "application/json", 16) != 0) {
		reply_error(r, 400, "Bad Request", NULL,
			    "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed");
		return NULL;
	}
	j = lift_parse(r->body, &e);
	if (!json_is_object(j)) {
		json_decref(j);
		reply_error(
			r, 400, "Bad Request", "body",
			"1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.%d', 'msg': 'JSON decode error', "
			"'input': '<dict of 0 items>', 'ctx': {'error': '%s'}}",
			e.position, e.text);
		return NULL;
	}
	return j;
}

static void missing(const struct request *r, const json_t *body, const char *field)
{
	char param[64];

	snprintf(param, sizeof(param), "body.%s", field);
	reply_error(r, 400, "Bad Request", param,
		    "1 validation error:\n  {'type': 'missing', 'loc': '%s', 'msg': 'Field required', 'input': '<dict "
		    "of %zu "
		    "items>'}",
		    param, json_object_size(body));
}

static void bad_value(const struct request *r, const char *param, const char *what)
{
	reply_error(r, 400, "BadRequestError", param, "%s (parameter=%s)", what, param);
}

bool api_model(const struct request *r, const json_t *body, const struct opts_lora **ret_lora, const char **ret_name)
{
	const struct pod *p = r->c->pod;
	const char *name = json_string_value(json_object_get(body, "model"));
	const char *first = p->o.served.n ? p->o.served.v[0] : p->o.model;

	*ret_lora = NULL;
	*ret_name = name ? name : first;
	if (!name || (!p->o.served.n && !strcmp(name, p->o.model)))
		return true;
	for (unsigned i = 0; i < p->o.served.n; i++)
		if (!strcmp(name, p->o.served.v[i]))
			return true;
	*ret_lora = pod_lora(p, name);
	if (*ret_lora)
		return true;
	reply_error(r, 404, "NotFoundError", "model", "The model `%s` does not exist. Valid aliases: %s.", name, first);
	return false;
}

/* --- prompts --- */

struct prompts {
	struct ids v[SEQS_MAX];
	unsigned n;
};

static void prompts_free(struct prompts *p)
{
	for (unsigned i = 0; i < p->n; i++)
		free(p->v[i].v);
}

static int put_ids(const json_t *a, struct ids *out)
{
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)a, i,
			   v) if (!json_is_integer(v) || json_integer_value(v) < 0 ||
				  json_integer_value(v) > UINT32_MAX ||
				  ids_put(out, (uint32_t)json_integer_value(v))) return -EINVAL;
	return 0;
}

/* string | [string] | [int] | [[int]] */
static int read_prompts(const json_t *j, struct prompts *out)
{
	const json_t *v;
	size_t i;

	if (json_is_string(j)) {
		out->n = 1;
		return tok_encode(lift_text(j), &out->v[0]);
	}
	if (!json_is_array(j) || !json_array_size(j))
		return -EINVAL;
	if (json_is_integer(json_array_get(j, 0))) {
		out->n = 1;
		return put_ids(j, &out->v[0]);
	}
	json_array_foreach((json_t *)(uintptr_t)j, i, v)
	{
		struct ids *to = &out->v[out->n];
		int r = -EINVAL;

		if (out->n == SEQS_MAX)
			return -EINVAL;
		out->n++;
		if (json_is_string(v))
			r = tok_encode(lift_text(v), to);
		else if (json_is_array(v))
			r = put_ids(v, to);
		if (r)
			return r;
	}
	return 0;
}

static int chat_text(const struct pod *p, const json_t *messages, bool generation_prompt, struct buf *out)
{
	int r = buf_puts(out, p->o.chat_prelude);

	return r ? r : tok_chat(messages, generation_prompt, out);
}

static int read_chat(const struct pod *p, const json_t *messages, struct prompts *out)
{
	struct buf text = { 0 };
	int r = json_is_array(messages) && json_array_size(messages) ? chat_text(p, messages, true, &text) : -EINVAL;

	out->n = 1;
	r = r ? r : tok_encode(buf_str(&text), &out->v[0]);
	buf_free(&text);
	return r;
}

/* What mode echo says again: the prompt, of a chat the last message. */
static int read_echo(struct answer *a, const json_t *body, const struct prompts *p)
{
	const json_t *messages = json_object_get(body, "messages");
	const json_t *last = json_array_get(messages, json_array_size(messages) - 1), *one;
	struct ids ids = { 0 };
	struct buf text = { 0 };
	int r = 0;

	if (a->chat) {
		one = json_pack("[{s:s, s:O}]", "role", "", "content", json_object_get(last, "content"));
		r = one ? tok_chat(one, false, &text) : 0;
		json_decref((json_t *)(uintptr_t)one);
		/* without what is around the content: "<|im_start|>\n" and "<|im_end|>\n" */
		if (buf_len(&text) > 24)
			r = tok_encode((struct str){ buf_data(&text) + 13, buf_len(&text) - 24 }, &ids);
	} else {
		for (uint32_t i = 0; i < p->v[0].n && !r; i++)
			r = ids_put(&ids, p->v[0].v[i]);
	}
	buf_free(&text);
	a->echo_ids = ids.v;
	a->necho = ids.n;
	return r;
}

/* --- parameters --- */

static bool flag(const json_t *body, const char *key)
{
	return json_is_true(json_object_get(body, key));
}

static bool read_u32(const struct request *r, const json_t *body, const char *key, uint32_t least, uint32_t *ret)
{
	const json_t *v = json_object_get(body, key);

	if (!v || json_is_null(v))
		return true;
	if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > UINT32_MAX) {
		reply_error(r, 400, "BadRequestError", key, "%s must be at least %u. (parameter=%s)", key, least, key);
		return false;
	}
	*ret = (uint32_t)json_integer_value(v);
	return true;
}

static bool read_stop(const struct request *r, struct answer *a, const json_t *stop)
{
	size_t n = json_is_array(stop) ? json_array_size(stop) : json_is_string(stop);

	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_is_array(stop) ? json_array_get(stop, i) : stop;

		if (!json_string_length(v) || a->nstop == STOP_MAX) {
			bad_value(r, "stop", "stop must be at most 8 strings, none of them empty.");
			return false;
		}
		a->stop[a->nstop++] = json_string_value(v);
		if (json_string_length(v) > a->stop_longest)
			a->stop_longest = json_string_length(v);
	}
	return true;
}

static bool read_params(const struct request *r, struct answer *a, json_t *body)
{
	const struct pod *p = r->c->pod;
	const json_t *so = json_object_get(body, "stream_options"), *temp = json_object_get(body, "temperature");
	const json_t *salt = json_object_get(body, "cache_salt");
	uint32_t n = 1;

	a->stream = flag(body, "stream");
	if (so && !json_is_null(so) && !a->stream) {
		bad_value(r, "stream_options", "Stream options can only be defined when `stream=True`.");
		return false;
	}
	a->usage = flag(so, "include_usage");
	a->usage_each = a->usage && flag(so, "continuous_usage_stats");
	a->ignore_eos = flag(body, "ignore_eos");
	a->echo = flag(body, "echo") && !a->chat;
	a->want_ids = flag(body, "return_token_ids");
	a->max_tokens = a->chat ? UINT32_MAX : 16;
	if (!read_u32(r, body, "n", 1, &n) || !read_u32(r, body, "max_tokens", 1, &a->max_tokens) ||
	    (a->chat && !read_u32(r, body, "max_completion_tokens", 1, &a->max_tokens)) ||
	    !read_u32(r, body, "min_tokens", 0, &a->min_tokens))
		return false;
	if (a->max_tokens != UINT32_MAX && a->max_tokens > p->o.max_model_len) {
		reply_error(
			r, 400, "BadRequestError", "max_tokens",
			"max_tokens=%u cannot be greater than max_model_len=%u. Please request fewer output tokens. "
			"(parameter=max_tokens, value=%u)",
			a->max_tokens, p->o.max_model_len, a->max_tokens);
		return false;
	}
	if (json_is_number(temp) && json_number_value(temp) < 0) {
		reply_error(r, 400, "BadRequestError", "temperature",
			    "temperature must be non-negative, got %.1f. (parameter=temperature, value=%.1f)",
			    json_number_value(temp), json_number_value(temp));
		return false;
	}
	if (salt && !json_is_null(salt)) {
		if (!json_string_length(salt)) {
			bad_value(r, "cache_salt", "Parameter 'cache_salt' must be a non-empty string if provided.");
			return false;
		}
		a->salt = strdup(json_string_value(salt));
	}
	a->n = n;
	return read_stop(r, a, json_object_get(body, "stop"));
}

/* kv_transfer_params, where the pod's role honours them. A real decode engine ends on most of what is refused here. */
static bool read_transfer(const struct request *r, struct answer *a, const json_t *body, bool *ret_remote)
{
	const char *role = r->c->pod->o.role;
	const json_t *kv = json_object_get(body, "kv_transfer_params"), *cached;

	*ret_remote = false;
	if (!kv || json_is_null(kv) || !strcmp(role, "none"))
		return true;
	if (!json_is_object(kv)) {
		bad_value(r, "kv_transfer_params", "kv_transfer_params must be an object.");
		return false;
	}
	a->remote_decode = flag(kv, "do_remote_decode") && strcmp(role, "decode") != 0;
	if (!flag(kv, "do_remote_prefill") || !strcmp(role, "prefill"))
		return true;
	if (!json_is_array(json_object_get(kv, "remote_block_ids")) ||
	    !json_is_string(json_object_get(kv, "remote_engine_id")) ||
	    !json_is_string(json_object_get(kv, "remote_host")) ||
	    !json_is_integer(json_object_get(kv, "remote_port"))) {
		reply_error(r, 500, "InternalServerError", NULL,
			    "kv_transfer_params is not complete: vLLM's engine ends here");
		return false;
	}
	cached = json_object_get(kv, "remote_prefill_cached_tokens");
	if (json_is_integer(cached))
		a->remote_cached = (uint32_t)json_integer_value(cached);
	*ret_remote = true;
	return true;
}

static bool fits(const struct request *r, struct answer *a, const struct prompts *p)
{
	uint32_t most = r->c->pod->o.max_model_len, longest = 0;

	for (unsigned i = 0; i < p->n; i++) {
		if (!p->v[i].n) {
			bad_value(r, "prompt", "The decoder prompt cannot be empty.");
			return false;
		}
		if (p->v[i].n > longest)
			longest = p->v[i].n;
	}
	if (longest >= most) {
		reply_error(r, 400, "BadRequestError", "input_tokens",
			    "This model's maximum context length is %u tokens. However, your prompt contains at least "
			    "%u input "
			    "tokens, which exceeds this limit even without any output tokens. Please reduce the length "
			    "of the "
			    "input prompt. (parameter=input_tokens, value=%u)",
			    most, most + 1, most + 1);
		return false;
	}
	/* 16 is what completions have by default: that is cut to what fits. */
	if (a->max_tokens != UINT32_MAX && a->max_tokens > most - longest && a->max_tokens != 16) {
		reply_error(
			r, 400, "BadRequestError", "input_tokens",
			"This model's maximum context length is %u tokens. However, you requested %u output tokens and "
			"your prompt contains %u input tokens, for a total of %u tokens. Please reduce the length of "
			"the "
			"input prompt or the number of requested output tokens. (parameter=input_tokens, value=%u)",
			most, a->max_tokens, longest, a->max_tokens + longest, longest);
		return false;
	}
	if (a->max_tokens > most - longest)
		a->max_tokens = most - longest;
	return true;
}

/* One sequence for each prompt and choice, into the engine's queue. */
static int submit(struct answer *a, const struct prompts *p, bool remote)
{
	struct pod *pod = a->c->pod;
	unsigned per = a->n, total = p->n * per;
	uint64_t now = time_mono();
	int r;

	a->g = total ? calloc(total, sizeof(*a->g)) : NULL;
	if (!a->g)
		return -ENOMEM;
	a->n = total;
	for (unsigned i = 0; i < total; i++) {
		struct gen *g = &a->g[i];
		const struct ids *t = &p->v[i / per];

		r = seq_init(&g->s, t->v, t->n);
		if (r)
			return r;
		g->a = a;
		g->index = i;
		g->prompt = i / per;
		g->rng.s = hash_bytes(t->v, t->n * sizeof(*t->v), pod->o.seed + i % per);
		g->eos_at = 32 + (uint32_t)rng_below(&g->rng, 224);
		g->s.lora = str_of(a->lora_name);
		g->s.lora_path = str_of(a->lora_path);
		g->s.salt = str_of(a->salt);
		g->s.remote = remote;
	}
	for (unsigned i = 0; i < total; i++) {
		r = engine_submit(&pod->e, &a->g[i].s, now);
		if (r)
			return r;
		a->g[i].started = true;
	}
	a->left = total;
	return 0;
}

static bool prepare(const struct request *r, struct answer *a, json_t *body, struct prompts *p)
{
	const struct opts_lora *lora;
	const char *name, *field = a->chat ? "messages" : "prompt";
	const json_t *prompt = json_object_get(body, field);
	bool remote;
	int e;

	if (!prompt) {
		missing(r, body, field);
		return false;
	}
	if (!api_model(r, body, &lora, &name) || !read_params(r, a, body) || !read_transfer(r, a, body, &remote))
		return false;
	if (a->chat ? read_chat(a->c->pod, prompt, p) : read_prompts(prompt, p)) {
		bad_value(r, field,
			  a->chat ? "messages must be a list of objects with role and content."
				  : "prompt must be a string, token ids, or a list of either.");
		return false;
	}
	if (!fits(r, a, p))
		return false;
	a->model = strdup(name);
	if (lora) {
		a->lora_name = strdup(lora->name);
		a->lora_path = strdup(lora->path);
	}
	if (*r->c->pod->o.mode == 'e' && read_echo(a, body, p))
		return false;
	e = r->c->pod->e.nwaiting + a->n * p->n > r->c->pod->e.lim.max_waiting ? -EBUSY : submit(a, p, remote);
	if (e == -EBUSY)
		reply_error(r, 429, "TooManyRequestsError", NULL, "Too many requests are waiting; try again later.");
	else if (e)
		reply_error(r, 500, "InternalServerError", NULL, "out of memory");
	return !e;
}

void api_generate(const struct request *r, bool chat)
{
	enum fault f = fault_draw(r);
	struct prompts *p;
	struct answer *a;
	json_t *body;

	if (fault_before(r, f))
		return;
	body = api_body(r);
	if (!body)
		return;
	p = calloc(1, sizeof(*p));
	a = calloc(1, sizeof(*a));
	if (p && a) {
		a->c = r->c;
		a->chat = chat;
		a->fault = f;
		a->remote_cached = UINT32_MAX;
		a->created = (long)(time_wall() / NS_PER_S);
		snprintf(a->rid, sizeof(a->rid), "%s", r->id);
		snprintf(a->id, sizeof(a->id), "%s-%.*s", chat ? "chatcmpl" : "cmpl", r->id_given ? 128 : 16, r->id);
		if (prepare(r, a, body, p)) {
			a->body = json_incref(body);
			r->c->answer = a;
			answer_start(a);
			pod_kick(r->c->pod);
			a = NULL;
		}
	}
	if (p)
		prompts_free(p);
	free(p);
	answer_free(a);
	json_decref(body);
}

/* --- the smaller ones --- */

static json_t *usage_of(uint32_t prompt)
{
	return json_pack("{s:i, s:i, s:i, s:n}", "prompt_tokens", prompt, "total_tokens", prompt, "completion_tokens",
			 0, "prompt_tokens_details");
}

void api_embeddings(const struct request *r)
{
	json_t *body = api_body(r), *list;
	const struct opts_lora *lora;
	const char *name;
	struct prompts *p;
	uint32_t total = 0;
	char id[40];

	if (!body)
		return;
	p = calloc(1, sizeof(*p));
	if (!json_object_get(body, "input")) {
		missing(r, body, "input");
	} else if (!api_model(r, body, &lora, &name) || !p) {
		/* refused */
	} else if (read_prompts(json_object_get(body, "input"), p)) {
		bad_value(r, "input", "input must be a string, token ids, or a list of either.");
	} else {
		list = json_array();
		for (unsigned i = 0; i < p->n; i++) {
			struct rng g = { hash_bytes(p->v[i].v, p->v[i].n * sizeof(uint32_t), r->c->pod->o.seed) };
			json_t *v = json_array();

			total += p->v[i].n;
			for (int k = 0; k < 8; k++)
				json_array_append_new(v, json_real(2 * rng_unit(&g) - 1));
			json_array_append_new(
				list, json_pack("{s:i, s:s, s:o}", "index", i, "object", "embedding", "embedding", v));
		}
		snprintf(id, sizeof(id), "embd-%.16s", r->id);
		reply_json(r, 200,
			   json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", id, "object", "list", "created",
				     (json_int_t)(time_wall() / NS_PER_S), "model", name, "data", list, "usage",
				     usage_of(total)));
	}
	if (p)
		prompts_free(p);
	free(p);
	json_decref(body);
}

void api_tokenize(const struct request *r)
{
	json_t *body = api_body(r), *tokens;
	const struct opts_lora *lora;
	const char *name;
	struct buf text = { 0 };
	struct ids ids = { 0 };
	const json_t *messages, *prompt;
	int e;

	if (!body)
		return;
	messages = json_object_get(body, "messages");
	prompt = json_object_get(body, "prompt");
	if (!messages && !prompt) {
		missing(r, body, "prompt");
	} else if (api_model(r, body, &lora, &name)) {
		if (messages)
			e = chat_text(r->c->pod, messages,
				      !json_is_false(json_object_get(body, "add_generation_prompt")), &text);
		else
			e = json_is_string(prompt) ? buf_put(&text, lift_text(prompt).p, lift_text(prompt).n) : -EINVAL;
		if (e || tok_encode(buf_str(&text), &ids)) {
			bad_value(r, messages ? "messages" : "prompt", "not a text.");
		} else {
			tokens = json_array();
			for (uint32_t i = 0; i < ids.n; i++)
				json_array_append_new(tokens, json_integer(ids.v[i]));
			reply_json(r, 200,
				   json_pack("{s:i, s:i, s:o, s:n}", "count", ids.n, "max_model_len",
					     r->c->pod->o.max_model_len, "tokens", tokens, "token_strs"));
		}
	}
	buf_free(&text);
	free(ids.v);
	json_decref(body);
}

void api_detokenize(const struct request *r)
{
	json_t *body = api_body(r), *v;
	struct buf text = { 0 }, out = { 0 };
	struct jw w;
	size_t i;

	if (!body)
		return;
	if (!json_is_array(json_object_get(body, "tokens"))) {
		missing(r, body, "tokens");
	} else {
		json_array_foreach(json_object_get(body, "tokens"), i, v)
		{
			struct str s = tok_piece((uint32_t)json_integer_value(v));

			buf_put(&text, s.p, s.n);
		}
		jw_init(&w, &out);
		jw_obj(&w);
		jw_key(&w, "prompt");
		jw_strn(&w, (struct str){ buf_len(&text) ? buf_data(&text) : "", buf_len(&text) });
		jw_end_obj(&w);
		reply(r, 200, "application/json", buf_str(&out));
		buf_free(&out);
	}
	buf_free(&text);
	json_decref(body);
}

void api_dispatch(const struct request *r)
{
	static const struct {
		const char *path;
		void (*run)(const struct request *r);
	} small[] = { { "/v1/embeddings", api_embeddings },
		      { "/tokenize", api_tokenize },
		      { "/detokenize", api_detokenize } };
	bool chat = !strcmp(r->path, "/v1/chat/completions"), completion = !strcmp(r->path, "/v1/completions");
	bool post = str_eq(r->head->method, STR("POST"));
	void (*run)(const struct request *r) = NULL;

	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++)
		if (!strcmp(r->path, small[i].path))
			run = small[i].run;
	if (!chat && !completion && !run) {
		if (!admin_dispatch(r))
			reply(r, 404, "application/json", STR("{\"detail\":\"Not Found\"}"));
		return;
	}
	if (!post)
		reply_method(r, "POST");
	else if (r->c->pod->o.startup > (double)(time_mono() - r->c->pod->start_ns))
		reply_error(r, 503, "ServiceUnavailableError", NULL, "The model is still being loaded.");
	else if (run)
		run(r);
	else
		api_generate(r, chat);
}
