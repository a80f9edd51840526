/* SPDX-License-Identifier: Apache-2.0
 * What is asked of the pods, and what is made of the answers.
 *
 * Each pod has four jobs: metrics, models, health, version. A job is one question (fetch.h), kept for its connection,
 * and a timer for when it is due; it is set again when the answer is in, so a slow pod is asked less often, never twice
 * at once.
 *
 * A pod begins as usable: until two health checks in a row have failed nothing speaks against it. Metrics that cannot
 * be read are unknown: at once when the pod refuses them (401, 403, 404), after three failures else.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/rand.h"
#include "base/time.h"
#include "fetch/fetch.h"
#include "model/chat.h"
#include "scrape/scrape_int.h"

#define BODY_MAX	(4u << 20)
#define MODELS_INTERVAL (10 * NS_PER_S)
#define TIMEOUT_NS	(5 * NS_PER_S)
#define FAILS_DOWN	2
#define FAILS_UNKNOWN	3
#define TOGETHER_MAX	8 /* questions asked in one turn; more would delay what else the loop has to do */

enum what { W_METRICS, W_MODELS, W_HEALTH, W_VERSION };
#define W_N (W_VERSION + 1)

struct target;

struct job {
	struct target *t;
	enum what what;
	struct fetch_ask ask;
	unsigned fails;
	struct loop_timer due;
	char error[120]; /* "" when the last one was well */
};

struct target {
	struct list link;
	struct scrape *s;
	struct pod *pod;
	bool version_asked;
	double version_of; /* process_start that pod->version belongs to */
	struct job jobs[W_N];
};

struct scrape {
	struct loop *loop;
	const struct config *cfg;
	struct stats *st;
	struct scrape_sink sink;
	struct fetch *fetch;
	struct list targets;
	struct rng rng;
	struct fetch_key *keys; /* of each pool */
};

/* --- asking --- */

static const struct config_pool *pool_of(const struct job *j)
{
	return &j->t->s->cfg->pools[j->t->pod->pool];
}

static void url_of(const struct job *j, char *out, size_t n)
{
	const struct pod *p = j->t->pod;
	const struct config_pool *c = pool_of(j);
	struct net_addr a = p->spec.addr;
	char at[NET_NAME_MAX];
	uint64_t port;

	if (j->what == W_METRICS && p->spec.metrics[0]) {
		snprintf(out, n, "http://%s%s", p->spec.metrics, strchr(p->spec.metrics, '/') ? "" : c->metrics_path);
		return;
	}
	if (j->what == W_METRICS && !str_u64(str_of(c->metrics_port), &port))
		net_addr_set_port(&a, (uint16_t)port);
	net_addr_format(&a, at);
	snprintf(out, n, "http://%s%s", at,
		 j->what == W_METRICS  ? c->metrics_path
		 : j->what == W_HEALTH ? c->health_path
		 : j->what == W_MODELS ? "/v1/models"
				       : "/version");
}

static const char *key_of(const struct job *j)
{
	struct scrape *s = j->t->s;
	struct fetch_key *k = &s->keys[j->t->pod->pool];

	k->file = pool_of(j)->api_key_file;
	return fetch_key(k, loop_now(s->loop));
}

static uint64_t interval_of(const struct job *j)
{
	return j->what == W_METRICS  ? pool_of(j)->scrape_interval
	       : j->what == W_HEALTH ? pool_of(j)->health_interval
				     : MODELS_INTERVAL;
}

static void again(struct job *j)
{
	struct scrape *s = j->t->s;
	double every = (double)interval_of(j) * (0.9 + 0.2 * rng_unit(&s->rng));

	(void)loop_timer_set(s->loop, &j->due, time_mono() + (uint64_t)every);
}

static void failed(struct job *j, const char *why);

static void ask(struct job *j)
{
	char url[256];

	if (j->ask.running)
		return;
	url_of(j, url, sizeof(url)); /* discovery may have changed it */
	if (fetch_go(&j->ask, "GET", url, key_of(j), j->what == W_HEALTH ? pool_of(j)->health_timeout : TIMEOUT_NS)) {
		failed(j, "out of memory");
		again(j);
	}
}

/* Waking up costs more than asking: what is due soon comes along. */
static void due(struct loop_timer *t)
{
	struct job *first = container_of(t, struct job, due);
	struct scrape *s = first->t->s;
	uint64_t now = loop_now(s->loop);
	unsigned n = 1;

	ask(first);
	list_for_each (it, &s->targets) {
		struct target *other = container_of(it, struct target, link);

		for (unsigned i = 0; i < W_N && n < TOGETHER_MAX; i++) {
			struct job *j = &other->jobs[i];

			if (!loop_timer_armed(&j->due) || j->due.node.key > now + interval_of(j) / 5)
				continue;
			loop_timer_del(s->loop, &j->due);
			ask(j);
			n++;
		}
	}
}

/* --- answers --- */

/* What is shown of a pod is the gravest of its jobs' errors. */
static void show_error(struct target *t)
{
	static const enum what order[] = { W_HEALTH, W_METRICS, W_MODELS };

	t->pod->last_error[0] = '\0';
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (t->jobs[order[i]].error[0]) {
			snprintf(t->pod->last_error, sizeof(t->pod->last_error), "%s", t->jobs[order[i]].error);
			return;
		}
}

static void metrics_unknown(struct pod *p)
{
	struct pod_sample s = p->sample;

	s.at_ns = 0;
	s.running = s.waiting = s.kv_usage = NAN;
	p->adapters.known = false;
	pod_set_sample(p, &s);
}

static void failed(struct job *j, const char *why)
{
	static const char *const names[] = { "metrics", "models", "health", "version" };
	struct scrape *s = j->t->s;
	struct pod *p = j->t->pod;

	j->fails++;
	snprintf(j->error, sizeof(j->error), "%s: %s", names[j->what], why);
	switch (j->what) {
	case W_METRICS:
		stats_inc(s->st, STATS_SCRAPE_FAIL);
		if (j->fails == FAILS_UNKNOWN)
			metrics_unknown(p);
		break;
	case W_HEALTH:
		stats_inc(s->st, STATS_HEALTH_FAIL);
		if (j->fails == FAILS_DOWN)
			pod_set_down(p, POD_DOWN_HEALTH, true);
		break;
	case W_MODELS:
	case W_VERSION:
		break;
	}
}

static void well(struct job *j)
{
	j->fails = 0;
	j->error[0] = '\0';
}

static void take_metrics(struct job *j)
{
	struct pod *p = j->t->pod;
	struct scrape *s = j->t->s;
	enum pod_engine engine;
	struct pod_adapters adapters;
	struct pod_sample sample;

	metrics_read(buf_str(&j->ask.body), (struct str){ NULL, 0 }, &sample, &engine, &adapters);
	if (engine == ENGINE_UNKNOWN) {
		failed(j, "200, but no metric of a known engine");
		return;
	}
	well(j);
	stats_inc(s->st, STATS_SCRAPE_OK);
	sample.at_ns = loop_now(s->loop);
	pod_set_sample(p, &sample);
	p->adapters = adapters;
	p->engine = engine;
}

static void take_models(struct job *j)
{
	struct model_list m;

	if (model_list_read(buf_str(&j->ask.body), &m)) {
		failed(j, "/v1/models is not a list of models");
		return;
	}
	if (pod_set_models(j->t->pod, m.name, m.root, m.n) == -ENOMEM)
		failed(j, "out of memory");
	else
		well(j);
	model_list_free(&m);
}

static void take_health(struct job *j)
{
	well(j);
	stats_inc(j->t->s->st, STATS_HEALTH_OK);
	pod_set_down(j->t->pod, POD_DOWN_HEALTH, false);
}

/* Once for each process: the answer cannot change before the process does. What failed is tried again with the models,
 * not with each page of metrics. */
static void want_version(struct target *t, bool retry)
{
	struct pod *p = t->pod;
	double start = p->sample.process_start;
	bool asked = t->version_asked && (isnan(start) || start == t->version_of);

	if (p->engine != ENGINE_VLLM || t->jobs[W_VERSION].ask.running || (asked && (p->version[0] || !retry)))
		return;
	t->version_asked = true;
	t->version_of = start;
	ask(&t->jobs[W_VERSION]);
}

/* What the engine does to chats: by its version, by the configuration's where the pod's is of no use. */
static void find_rules(struct target *t)
{
	const struct config_pool *c = pool_of(&t->jobs[W_VERSION]);
	struct pod *p = t->pod;
	uint32_t lacks = CHAT_RULES_UNKNOWN;
	char why[100];

	if (p->engine == ENGINE_VLLM || p->engine == ENGINE_UNKNOWN)
		lacks = chat_rules_lacking(p->version, why, sizeof(why));
	if (lacks == CHAT_RULES_UNKNOWN && c->engine_version && p->engine <= ENGINE_VLLM)
		lacks = chat_rules_lacking(c->engine_version, why, sizeof(why));
	atomic_store_explicit(&p->chat_lacks, lacks, memory_order_relaxed);
}

static void take(struct job *j)
{
	switch (j->what) {
	case W_METRICS:
		take_metrics(j);
		find_rules(j->t);
		want_version(j->t, false);
		break;
	case W_MODELS:
		take_models(j);
		want_version(j->t, true);
		break;
	case W_HEALTH:
		take_health(j);
		break;
	case W_VERSION:
		(void)version_read(buf_str(&j->ask.body), j->t->pod->version, sizeof(j->t->pod->version));
		find_rules(j->t);
		break;
	}
}

static void refused(struct job *j, unsigned status)
{
	const struct config_pool *c = pool_of(j);
	char why[100], url[256];

	url_of(j, url, sizeof(url));
	if (status == 401)
		snprintf(why, sizeof(why), "401, %s",
			 !c->api_key_file ? "needs an API key"
			 : !key_of(j)	  ? "needs an API key, and api-key-file has none"
					  : "the API key is not accepted");
	else if (status == 403)
		snprintf(why, sizeof(why), "403, the API key may not read it");
	else if (status == 404)
		snprintf(why, sizeof(why), "404 at %.80s", url);
	else
		snprintf(why, sizeof(why), "status %u", status);
	if (j->what == W_HEALTH && (status == 401 || status == 403)) {
		/* Whoever refuses is alive. */
		take_health(j);
		snprintf(j->error, sizeof(j->error), "health: %s", why);
		return;
	}
	failed(j, why);
	if (j->what == W_METRICS && (status == 401 || status == 403 || status == 404))
		metrics_unknown(j->t->pod);
}

static void done(struct fetch_ask *a)
{
	struct job *j = container_of(a, struct job, ask);
	struct target *t = j->t;
	struct scrape *s = t->s;

	if (a->error[0])
		failed(j, a->error);
	else if (a->status >= 200 && a->status < 300)
		take(j);
	else
		refused(j, a->status);
	show_error(t);
	if (j->what != W_VERSION)
		again(j);
	if (s->sink.changed)
		s->sink.changed(s->sink.arg, t->pod);
}

/* --- pods --- */

void scrape_add(struct scrape *s, struct pod *p)
{
	struct target *t = calloc(1, sizeof(*t));

	if (!t)
		return;
	t->s = s;
	t->pod = pod_ref(p);
	t->version_of = NAN;
	list_add_tail(&s->targets, &t->link);
	t->jobs[W_VERSION].t = t;
	find_rules(t);
	for (unsigned i = 0; i < W_N; i++) {
		struct job *j = &t->jobs[i];

		j->t = t;
		j->what = (enum what)i;
		loop_timer_init(&j->due, due);
		fetch_init(&j->ask, s->fetch, BODY_MAX, done);
		/* All at once, but for a moment each, so that a hundred pods do not come in one turn. */
		if (i != W_VERSION)
			(void)loop_timer_set(s->loop, &j->due, time_mono() + rng_below(&s->rng, 20 * NS_PER_MS));
	}
}

static void target_free(struct target *t)
{
	struct scrape *s = t->s;

	for (unsigned i = 0; i < W_N; i++) {
		struct job *j = &t->jobs[i];

		loop_timer_del(s->loop, &j->due);
		fetch_fini(&j->ask);
	}
	list_del(&t->link);
	pod_unref(t->pod);
	free(t);
}

void scrape_remove(struct scrape *s, struct pod *p)
{
	list_for_each (it, &s->targets) {
		struct target *t = container_of(it, struct target, link);

		if (t->pod == p) {
			target_free(t);
			return;
		}
	}
}

struct scrape *scrape_start(struct loop *l, const struct config *cfg, struct stats *st, struct scrape_sink sink)
{
	struct scrape *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = l;
	s->cfg = cfg;
	s->st = st;
	s->sink = sink;
	s->rng = (struct rng){ rand_secret() };
	list_init(&s->targets);
	s->keys = calloc(cfg->npools ? cfg->npools : 1, sizeof(*s->keys));
	s->fetch = fetch_new(l);
	if (!s->keys || !s->fetch) {
		scrape_stop(s);
		errno = ENOMEM;
		return NULL;
	}
	return s;
}

void scrape_stop(struct scrape *s)
{
	if (!s)
		return;
	list_for_each_safe (it, tmp, &s->targets)
		target_free(container_of(it, struct target, link));
	fetch_free(s->fetch);
	free(s->keys);
	free(s);
}
