/* SPDX-License-Identifier: Apache-2.0
 *
 * A pod and its model. What the daemon knows comes from pod.show; what only the pod can tell it is asked, as the daemon
 * and its clients would: with the pool's key, over one connection. One token is generated.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/doctor.h"
#include "cli/parity.h"
#include "model/chat_model.h"

#define EVENTS_FLAG                                                                                         \
	"start the engine with --kv-events-config '{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\"," \
	"\"endpoint\":\"tcp://*:5557\",\"replay_endpoint\":\"tcp://*:5558\"}' and give the pod events: "    \
	"tcp://*:5557, replay: tcp://*:5558"
#define CLOCK_OFF 60 /* seconds: templates that print the date differ around midnight only */

struct exam {
	struct doctor *d;
	const json_t *pod;
	struct web *w;
	char base[300];
	const char *model; /* what it serves, as it said now; NULL: nothing */
	json_t *models;	   /* its answer */
	struct web_answer a;
};

static const char *text(const struct exam *x, const char *key)
{
	const char *s = json_string_value(json_object_get(x->pod, key));

	return s ? s : "";
}

static json_int_t number(const struct exam *x, const char *key)
{
	return (json_int_t)json_number_value(json_object_get(x->pod, key));
}

static bool ask(struct exam *x, const char *path, const char *json)
{
	char url[400];

	snprintf(url, sizeof(url), "%s%s", x->base, path);
	return web_ask(x->w, url, json, &x->a);
}

static json_t *asked(struct exam *x)
{
	return json_loadb(buf_data(&x->a.body), buf_len(&x->a.body), 0, NULL);
}

static const char *keyless_fix(const struct exam *x)
{
	return x->a.status == 401 || x->a.status == 403
		       ? *text(x, "api_key_file") ? "put the engine's --api-key into the pool's api-key-file"
						  : "give the pool an api-key-file with the engine's --api-key"
		       : "is the engine up, and is it the address of an engine?";
}

/* Is it there; does it keep connections; is its clock ours? The second answer comes over the first one's connection. */
static bool check_reach(struct exam *x)
{
	struct doctor *d = x->d;
	double ms, off;

	ask(x, "/health", NULL);
	if (!x->a.status) {
		doctor_say(d, "reach", FINDING_FAIL, "is the engine up, and the address that of the pod?", "%s",
			   x->a.error);
		return false;
	}
	ms = x->a.seconds * 1e3;
	if (x->a.status != 200)
		doctor_say(d, "reach", FINDING_FAIL, "look at the engine's log", "/health says %ld", x->a.status);
	else
		doctor_say(d, "reach", FINDING_OK, NULL, "/health in %.0f ms", ms);
	if (strcmp(text(x, "state"), "up") != 0)
		doctor_say(d, "state", FINDING_WARN, "kvsteer pod undrain, if it was drained; else see what follows",
			   "%s: %s", text(x, "state"), text(x, "why"));
	ask(x, "/health", NULL);
	if (x->a.status && x->a.dialed)
		doctor_say(d, "keep-alive", FINDING_WARN,
			   "let the server, or the proxy before it, keep connections for 5 s at least",
			   "it closed the connection behind its answer: each request will pay for a new one");
	else if (x->a.status)
		doctor_say(d, "keep-alive", FINDING_OK, NULL, "the connection was kept");
	off = (double)(x->a.date - (int64_t)time(NULL));
	if (x->a.date && (off > CLOCK_OFF || off < -CLOCK_OFF))
		doctor_say(d, "clock", FINDING_WARN, "synchronise the clocks (NTP)",
			   "%.0f s off: templates that print the date give other text", off);
	else if (x->a.date)
		doctor_say(d, "clock", FINDING_OK, NULL, "within %d s", CLOCK_OFF);
	return true;
}

static bool lists(const json_t *data, const char *name)
{
	const json_t *m;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)data, i, m) if (strcmp(cli_text(m, "id"), name) == 0) return true;
	return false;
}

static void check_models(struct exam *x)
{
	const json_t *data, *names = json_object_get(x->pod, "configured_models"), *name;
	unsigned missing = 0;
	size_t i;

	if (!ask(x, "/v1/models", NULL)) {
		doctor_say(x->d, "models", FINDING_FAIL, keyless_fix(x), "/v1/models says %ld %s", x->a.status,
			   x->a.error);
		return;
	}
	x->models = asked(x);
	data = json_object_get(x->models, "data");
	x->model = json_string_value(json_object_get(json_array_get(data, 0), "id"));
	if (!x->model) {
		doctor_say(x->d, "models", FINDING_FAIL, "is this an OpenAI-compatible engine?",
			   "/v1/models lists nothing");
		return;
	}
	json_array_foreach((json_t *)(uintptr_t)names, i, name)
	{
		if (lists(data, json_string_value(name)))
			continue;
		missing++;
		doctor_say(x->d, "models", FINDING_FAIL,
			   "start the engine with --served-model-name and this name, or take it out of the pool's "
			   "models",
			   "\"%s\" is in the pool's models, the pod serves \"%s\"%s", json_string_value(name), x->model,
			   json_array_size(data) > 1 ? " and others" : "");
	}
	if (!missing)
		doctor_say(x->d, "models", FINDING_OK, NULL, "%s%s", x->model,
			   json_array_size(data) > 1 ? " and others" : "");
}

static void check_engine(struct exam *x)
{
	const char *engine = text(x, "engine"), *version = text(x, "version");
	char why[200];

	if (strcmp(engine, "unknown") == 0)
		doctor_say(x->d, "engine", FINDING_WARN,
			   "give the pool metrics (port, path) at which the pod's metrics are read",
			   "its metrics are none that are known%s%s", *text(x, "last_error") ? ": " : "",
			   text(x, "last_error"));
	else if (strcmp(engine, "vllm") == 0 && chat_rules_lacking(version, why, sizeof(why)) == CHAT_RULES_UNKNOWN)
		doctor_say(x->d, "engine", FINDING_WARN, NULL, "vLLM %s: %s", version, why);
	else
		doctor_say(x->d, "engine", FINDING_OK, NULL, "%s %s", engine, version);
}

static bool caching_is_off(struct exam *x)
{
	struct str page;

	if (!ask(x, "/metrics", NULL))
		return false;
	page = buf_str(&x->a.body);
	return page.n && memmem(page.p, page.n, "enable_prefix_caching=\"False\"", 29);
}

static void check_events(struct exam *x)
{
	const char *state = text(x, "index");
	json_int_t gaps = number(x, "event_gaps");
	const json_t *last = json_object_get(x->pod, "last_event");
	struct doctor *d = x->d;

	if (caching_is_off(x))
		doctor_say(d, "caching", FINDING_FAIL, "start the engine with --enable-prefix-caching",
			   "prefix caching is switched off: no request will find what another has left");
	if (strcmp(state, "none") == 0) {
		doctor_say(d, "events", FINDING_WARN, EVENTS_FLAG,
			   "no KV events are configured: what it has cached is assumed, not known");
		return;
	}
	if (strcmp(state, "live") == 0 && json_is_integer(last))
		doctor_say(d, "events", FINDING_OK, NULL, "live, last number %lld, %lld gaps", json_integer_value(last),
			   gaps);
	else if (strcmp(state, "live") == 0)
		doctor_say(d, "events", FINDING_OK, NULL, "connected; none has come yet");
	else if (strcmp(state, "stale") == 0)
		doctor_say(d, "events", FINDING_FAIL,
			   "give the engine a replay_endpoint and the pod replay: tcp://*:5558; or restart the engine",
			   "stale: events were missed (%lld gaps), and cannot be had again", gaps);
	else if (!*text(x, "model_path"))
		doctor_say(d, "events", FINDING_FAIL,
			   "give the pool the model's files as model-path; kvsteer model pull fetches them",
			   "without model-path the events cannot be read");
	else
		doctor_say(d, "events", FINDING_FAIL, EVENTS_FLAG, "%s cannot be connected to, or does not answer",
			   text(x, "events"));
	if (!*text(x, "replay") && strncmp(text(x, "events"), "http", 4) != 0)
		doctor_say(d, "replay", FINDING_WARN,
			   "give the engine a replay_endpoint and the pod replay: tcp://*:5558",
			   "without replay a gap, or a restart of kvsteerd, leaves the pod's cache unknown");
}

static void check_blocks(struct exam *x)
{
	json_int_t metrics = number(x, "block_size"), events = number(x, "event_block_size");

	if (metrics && events && metrics != events)
		doctor_say(x->d, "block size", FINDING_FAIL,
			   "with decode context parallelism this is so; else metrics or events are of another engine",
			   "%lld tokens by its metrics, %lld by its events", metrics, events);
	else if (metrics || events)
		doctor_say(x->d, "block size", FINDING_OK, NULL, "%lld tokens%s", metrics ? metrics : events,
			   metrics && events ? ", by metrics and events"
			   : metrics	     ? ", by metrics"
					     : ", by events");
	else
		doctor_say(x->d, "block size", FINDING_WARN,
			   "give the pool metrics (port, path) at which the pod's metrics are read", "not known");
	if (json_is_true(json_object_get(x->pod, "hybrid")))
		doctor_say(x->d, "cache groups", FINDING_WARN, NULL,
			   "several: a hit needs all of them, so predictions are scaled by what is reported");
}

/* One token, to see what its usage tells. */
static void check_details(struct exam *x)
{
	json_t *body = json_pack("{s:s, s:s, s:i}", "model", x->model, "prompt", "kvsteer doctor", "max_tokens", 1);
	char *json = json_dumps(body, JSON_COMPACT);
	const json_t *details;
	json_t *answer;

	json_decref(body);
	if (!json || !ask(x, "/v1/completions", json)) {
		free(json);
		doctor_say(x->d, "cached tokens", FINDING_WARN, NULL, "not asked: /v1/completions says %ld %s",
			   x->a.status, x->a.error);
		return;
	}
	free(json);
	answer = asked(x);
	details = json_object_get(json_object_get(answer, "usage"), "prompt_tokens_details");
	if (json_is_integer(json_object_get(details, "cached_tokens")))
		doctor_say(x->d, "cached tokens", FINDING_OK, NULL, "reported");
	else
		doctor_say(x->d, "cached tokens", FINDING_WARN,
			   strcmp(text(x, "engine"), "sglang") == 0
				   ? "start the engine with --enable-cache-report"
				   : "start the engine with --enable-prompt-tokens-details",
			   "not reported: whether predictions hold cannot be known");
	json_decref(answer);
}

static void say_parity(struct exam *x, const char *check, const char *fix, const char *what,
		       const struct parity_result *r)
{
	char line[600];

	parity_say(r, line, sizeof(line));
	doctor_say(x->d, check,
		   r->is == PARITY_SAME	     ? FINDING_OK
		   : r->is == PARITY_DIFFERS ? FINDING_FAIL
					     : FINDING_WARN,
		   r->is == PARITY_DIFFERS ? fix : NULL, "%s: %s", what, line);
}

static bool check_tokenizer(struct exam *x, struct vocab *v)
{
	static const char sample[] =
		"Where does the sun rise? It's 3.14159, 12345678 and 2026-11-25;\n\n\tint main(void) { return 0; }\r\n"
		"Gr\xc3\xbc\xc3\x9f"
		"e aus Z\xc3\xbcrich, \xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x99\x82  e\xcc\x81 I'LL";
	struct parity_ours ours = { .text = STR(sample), .special = true };
	struct parity_result r;

	parity_check(x->w, x->base, json_pack("{s:s, s:s}", "model", x->model, "prompt", sample), v, &ours, &r);
	say_parity(x, "tokenizer", "set model-path to the files of the revision that the pod serves", "a text", &r);
	if (vocab_no_encoder(v))
		doctor_say(x->d, "encoder", FINDING_WARN, NULL,
			   "none for this tokenizer (%s): generated text is not judged", vocab_no_encoder(v));
	return r.is == PARITY_SAME;
}

static const struct {
	const char *what, *request;
	bool tools;
} chats[] = {
	{ "a question", "{\"messages\":[{\"role\":\"user\",\"content\":\"Where does the sun rise?\"}]}", false },
	{ "several turns",
	  "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"Hi "
	  "\\u00fc\\n\"},"
	  "{\"role\":\"assistant\",\"content\":\"Hello!\"},{\"role\":\"user\",\"content\":\" And now? \"}]}",
	  false },
	{ "a tool's result",
	  "{\"messages\":[{\"role\":\"user\",\"content\":\"Is it warm in "
	  "Oslo?\"},{\"role\":\"assistant\",\"content\":null,"
	  "\"tool_calls\":[{\"id\":\"call12345\",\"type\":\"function\",\"function\":{\"name\":\"weather\","
	  "\"arguments\":"
	  "\"{\\\"city\\\": \\\"Oslo\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call12345\",\"content\":\"-3 "
	  "\\u00b0C\"}],"
	  "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"Weather of a city\","
	  "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}"
	  "}}]}",
	  true },
	{ "content in parts",
	  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"One.\"},{\"type\":\"text\","
	  "\"text\":"
	  "\"Two.\"}]}]}",
	  false },
};

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

static void check_chats(struct exam *x, struct vocab *v, struct chat_model *m)
{
	struct template_work *work = template_work_new();

	for (size_t i = 0; work && i < sizeof(chats) / sizeof(chats[0]); i++) {
		struct chat_in in = { .request = str_of(chats[i].request), .now = (int64_t)time(NULL) };
		struct template_error err = { 0 };
		struct parity_ours ours = { 0 };
		struct parity_result r;
		struct buf out = { 0 };

		if (chat_model_render(m, chats[i].tools, work, &in, (struct template_sink){ append, &out }, &err))
			ours.refused = err.text;
		ours.text = buf_str(&out);
		parity_check(x->w, x->base, parity_chat_body(in.request, x->model), v, &ours, &r);
		say_parity(x, "template",
			   "give the engine's --chat-template as the pool's chat-template; if it has none, set "
			   "model-path to the files of its revision",
			   chats[i].what, &r);
		buf_free(&out);
	}
	template_work_free(work);
}

static void check_model(struct exam *x)
{
	const char *path = text(x, "model_path"), *template = text(x, "chat_template");
	struct chat_model *m;
	struct vocab *v;
	char why[512];

	if (!*path) {
		doctor_say(x->d, "model", FINDING_WARN,
			   "give the pool the model's files as model-path; kvsteer model pull fetches them",
			   "no model-path: prefixes are approximate");
		return;
	}
	v = vocab_load(path, x->d->c->cache, why, sizeof(why));
	if (!v) {
		doctor_say(x->d, "model", FINDING_FAIL, "set model-path to a directory that can be read", "%s", why);
		return;
	}
	m = chat_model_load(path, *template ? template : NULL, why, sizeof(why));
	if (check_tokenizer(x, v) && m) /* else chats would say the same again, at another place */
		check_chats(x, v, m);
	if (!m)
		doctor_say(x->d, "template", FINDING_WARN, NULL, "chats are matched approximately: %s", why);
	chat_model_free(m);
	vocab_unref(v);
}

static void check_predictions(struct exam *x)
{
	const char *is = text(x, "predictions");

	if (strcmp(is, "doubted") == 0)
		doctor_say(x->d, "predictions", FINDING_FAIL, "see what else is found here", "%s", text(x, "doubts"));
	else
		doctor_say(x->d, "predictions", FINDING_OK, NULL, "%s", is);
}

void doctor_pod(struct doctor *d, const json_t *pod)
{
	struct exam x = { .d = d, .pod = pod };
	char *key = web_key(text(&x, "api_key_file"));

	if (*text(&x, "api_key_file") && !key)
		doctor_say(d, "key", FINDING_FAIL, "let api-key-file name a file that can be read", "%s has no key",
			   text(&x, "api_key_file"));
	snprintf(x.base, sizeof(x.base), "http://%.250s", text(&x, "name"));
	x.w = web_new(key);
	if (x.w && check_reach(&x)) {
		check_models(&x);
		check_engine(&x);
		check_events(&x);
		check_blocks(&x);
		if (x.model) {
			check_details(&x);
			check_model(&x);
		}
		check_predictions(&x);
	}
	web_free(x.w);
	json_decref(x.models);
	buf_free(&x.a.body);
	free(key);
}
