/* SPDX-License-Identifier: Apache-2.0
 *
 * What is not a prompt: models, health, adapters, sleep, cache reset, and the simulator's own /admin/config.
 */
#include <stdlib.h>
#include <string.h>

#include "base/jw.h"
#include "base/time.h"
#include "sim.h"

static bool starting(const struct pod *p)
{
	return p->o.startup > (double)(time_mono() - p->start_ns);
}

static void health(const struct request *r)
{
	reply(r, starting(r->c->pod) ? 503 : 200, NULL, STR(""));
}

static void version(const struct request *r)
{
	struct buf b = { 0 };
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, "version", r->c->pod->o.vllm_version);
	jw_end_obj(&w);
	reply(r, 200, "application/json", buf_str(&b));
	buf_free(&b);
}

static json_t *model(const struct request *r, const char *id, const char *root, const char *parent)
{
	struct pod *p = r->c->pod;
	json_int_t now = (json_int_t)(time_wall() / NS_PER_S);
	char hex[17], perm[40];

	random_hex(p, hex, 16);
	snprintf(perm, sizeof(perm), "modelperm-%s", hex);
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s?, s:o, s:[{s:s, s:s, s:I, s:b, s:b, s:b, s:b, s:b, s:b, s:s, "
			 "s:n, s:b}]}",
			 "id", id, "object", "model", "created", now, "owned_by", "vllm", "root", root, "parent",
			 parent, "max_model_len", parent ? json_null() : json_integer(p->o.max_model_len), "permission",
			 "id", perm, "object", "model_permission", "created", now, "allow_create_engine", 0,
			 "allow_sampling", 1, "allow_logprobs", 1, "allow_search_indices", 0, "allow_view", 1,
			 "allow_fine_tuning", 0, "organization", "*", "group", "is_blocking", 0);
}

static void models(const struct request *r)
{
	const struct opts *o = &r->c->pod->o;
	const char *base = o->served.n ? o->served.v[0] : o->model;
	json_t *list = json_array();

	if (!o->served.n)
		json_array_append_new(list, model(r, o->model, o->model, NULL));
	for (unsigned i = 0; i < o->served.n; i++)
		json_array_append_new(list, model(r, o->served.v[i], o->model, NULL));
	for (unsigned i = 0; i < o->nlora; i++)
		json_array_append_new(list, model(r, o->lora[i].name, o->lora[i].path, base));
	reply_json(r, 200, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

static void load(const struct request *r)
{
	reply_json(r, 200, json_pack("{s:i}", "server_load", r->c->pod->e.nrunning + r->c->pod->e.nwaiting));
}

static void kv_event_sources(const struct request *r)
{
	const struct pod *p = r->c->pod;

	if (!p->pub) {
		reply_json(r, 200, json_object());
		return;
	}
	reply_json(r, 200,
		   json_pack("{s:{s:b, s:s, s:s, s:s?, s:i, s:i, s:i, s:s}}", "0", "enable_kv_cache_events", 1,
			     "publisher", "zmq", "endpoint", pub_endpoint(p->pub), "replay_endpoint",
			     pub_replay_endpoint(p->pub), "buffer_steps", p->o.replay_size, "hwm", p->o.hwm,
			     "max_queue_size", 100000, "topic", pub_topic(p->pub)));
}

static void kv_cache_events(const struct request *r)
{
	struct buf b = { 0 };

	if (kvhttp_drain(r->c->pod->kvhttp, &b))
		reply_error(r, 500, "InternalServerError", NULL, "out of memory");
	else
		reply(r, 200, "application/json", buf_str(&b));
	buf_free(&b);
}

static void metrics(const struct request *r)
{
	struct buf b = { 0 };

	metrics_write(r->c->pod, &b);
	reply(r, 200, "text/plain; version=1.0.0; charset=utf-8", buf_str(&b));
	buf_free(&b);
}

static void reset_prefix_cache(const struct request *r)
{
	if (cache_reset(&r->c->pod->e.cache))
		reply(r, 200, "application/json", STR("{\"success\":false}"));
	else
		reply(r, 200, "application/json", STR("{\"success\":true}"));
}

static void sleep_now(const struct request *r)
{
	struct pod *p = r->c->pod;

	p->sleep_level = str_eq(r->query, STR("level=2")) ? 2 : 1;
	p->e.asleep = true;
	cache_reset(&p->e.cache);
	reply(r, 200, NULL, STR(""));
}

static void wake_up(const struct request *r)
{
	struct pod *p = r->c->pod;

	p->sleep_level = 0;
	p->e.asleep = false;
	pod_kick(p);
	reply(r, 200, NULL, STR(""));
}

static void is_sleeping(const struct request *r)
{
	reply_json(r, 200, json_pack("{s:b}", "is_sleeping", r->c->pod->sleep_level > 0));
}

static void load_lora(const struct request *r)
{
	struct opts *o = &r->c->pod->o;
	json_t *j = api_body(r);
	const char *name = json_string_value(json_object_get(j, "lora_name"));
	const char *path = json_string_value(json_object_get(j, "lora_path"));
	char text[512];

	if (!j)
		return;
	if (!name || !path) {
		reply_error(r, 400, "InvalidUserInput", NULL, "Both 'lora_name' and 'lora_path' must be provided.");
	} else if (pod_lora(r->c->pod, name)) {
		reply_error(r, 400, "InvalidUserInput", NULL, "The lora adapter '%s' has already been loaded.", name);
	} else if (o->nlora == OPTS_LIST_MAX) {
		reply_error(r, 400, "BadRequestError", NULL, "too many adapters");
	} else {
		o->lora[o->nlora++] = (struct opts_lora){ opts_keep(name), opts_keep(path) };
		snprintf(text, sizeof(text), "Success: LoRA adapter '%s' added successfully.", name);
		reply(r, 200, "text/plain; charset=utf-8", str_of(text));
	}
	json_decref(j);
}

static void unload_lora(const struct request *r)
{
	struct opts *o = &r->c->pod->o;
	json_t *j = api_body(r);
	const char *name = json_string_value(json_object_get(j, "lora_name"));
	const struct opts_lora *l = name ? pod_lora(r->c->pod, name) : NULL;
	char text[512];

	if (!j)
		return;
	if (!l) {
		reply_error(r, 404, "NotFoundError", NULL, "The lora adapter '%s' cannot be found.", name ? name : "");
	} else {
		unsigned i = (unsigned)(l - o->lora);

		snprintf(text, sizeof(text), "Success: LoRA adapter '%s' removed successfully.", name);
		memmove(&o->lora[i], &o->lora[i + 1], (--o->nlora - i) * sizeof(*o->lora));
		reply(r, 200, "text/plain; charset=utf-8", str_of(text));
	}
	json_decref(j);
}

/* A JSON value as the command line has it; "" for what has no such form. */
static void as_text(const json_t *v, struct buf *out)
{
	const json_t *e;
	size_t i;

	if (json_is_string(v)) {
		buf_puts(out, json_string_value(v));
	} else if (json_is_array(v)) {
		json_array_foreach((json_t *)(uintptr_t)v, i, e)
			buf_printf(out, "%s%s", i ? "," : "", json_is_string(e) ? json_string_value(e) : "");
	} else {
		char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

		buf_puts(out, s ? s : "");
		free(s);
	}
	buf_put(out, "", 1);
}

static void get_config(const struct request *r)
{
	struct buf b = { 0 };

	opts_write_live(&r->c->pod->o, &b);
	reply(r, 200, "application/json", buf_str(&b));
	buf_free(&b);
}

static void set_config(const struct request *r)
{
	struct pod *p = r->c->pod;
	json_t *j = json_loadb(r->body.p, r->body.n, 0, NULL), *v;
	struct opts old = p->o;
	const char *key;
	char err[256] = "not a JSON object";
	bool ok = json_is_object(j);

	json_object_foreach(j, key, v)
	{
		struct buf text = { 0 };

		as_text(v, &text);
		ok = ok && !opts_set_live(&p->o, key, buf_data(&text), err, sizeof(err));
		buf_free(&text);
	}
	json_decref(j);
	if (!ok) {
		p->o = old;
		reply_error(r, 400, "BadRequestError", NULL, "%s", err);
		return;
	}
	pod_configure(p);
	get_config(r);
}

struct route {
	const char *method, *path;
	void (*run)(const struct request *r);
	bool (*there)(const struct opts *o); /* NULL: always */
};

static bool may_sleep(const struct opts *o)
{
	return o->sleep_mode;
}

static bool may_load(const struct opts *o)
{
	return o->lora_updating;
}

static bool gets_events(const struct opts *o)
{
	return o->events_http && *o->events_http == 'g';
}

static bool posts_events(const struct opts *o)
{
	return o->events_http && *o->events_http == 'p';
}

static const struct route routes[] = {
	{ "GET", "/health", health, NULL },
	{ "GET", "/health/ready", health, NULL },
	{ "GET", "/ping", health, NULL },
	{ "POST", "/ping", health, NULL },
	{ "GET", "/version", version, NULL },
	{ "GET", "/load", load, NULL },
	{ "GET", "/v1/models", models, NULL },
	{ "GET", "/metrics", metrics, NULL },
	{ "GET", "/kv_event_sources", kv_event_sources, NULL },
	{ "GET", "/kv_cache_events", kv_cache_events, gets_events },
	{ "POST", "/kv_cache_events", kv_cache_events, posts_events },
	{ "POST", "/reset_prefix_cache", reset_prefix_cache, NULL },
	{ "POST", "/sleep", sleep_now, may_sleep },
	{ "POST", "/wake_up", wake_up, may_sleep },
	{ "GET", "/is_sleeping", is_sleeping, may_sleep },
	{ "POST", "/v1/load_lora_adapter", load_lora, may_load },
	{ "POST", "/v1/unload_lora_adapter", unload_lora, may_load },
	{ "GET", "/admin/config", get_config, NULL },
	{ "POST", "/admin/config", set_config, NULL },
};

bool admin_dispatch(const struct request *r)
{
	const char *allow = NULL;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const struct route *t = &routes[i];

		if (strcmp(t->path, r->path) != 0 || (t->there && !t->there(&r->c->pod->o)))
			continue;
		if (str_eq(r->head->method, str_of(t->method))) {
			t->run(r);
			return true;
		}
		allow = allow ? allow : t->method;
	}
	if (allow)
		reply_method(r, allow);
	return allow != NULL;
}
