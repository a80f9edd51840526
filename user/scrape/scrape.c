/* SPDX-License-Identifier: Apache-2.0
 * The gateway's own requests to its pods, through one libcurl multi handle on the loop.
 *
 * Each pod has four jobs: metrics, models, health, version. A job is one easy handle, kept for its connection, and a
 * timer for when it is due; it is set again when the answer is in, so a slow pod is asked less often, never twice at
 * once. libcurl tells which descriptors it waits for (on_socket) and when it wants to be called (on_timeout); finished
 * transfers are taken from it behind each call (reap).
 *
 * A pod begins as usable: until two health checks in a row have failed nothing speaks against it. Metrics that cannot
 * be read are unknown: at once when the pod refuses them (401, 403, 404), after three failures else.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/rand.h"
#include "base/time.h"
#include "scrape/scrape_int.h"

#define BODY_MAX	(4u << 20)
#define MODELS_INTERVAL (10 * NS_PER_S)
#define KEY_INTERVAL	(10 * NS_PER_S)
#define TIMEOUT_MS	5000L
#define FAILS_DOWN	2
#define FAILS_UNKNOWN	3

enum what { W_METRICS, W_MODELS, W_HEALTH, W_VERSION };
#define W_N (W_VERSION + 1)

struct target;

struct job {
	struct target *t;
	enum what what;
	CURL *easy;
	bool running;
	unsigned fails;
	struct buf body;
	struct loop_timer due;
	char curl_error[CURL_ERROR_SIZE];
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

struct key {
	char text[512];
	uint64_t read_ns; /* 0: never */
};

struct scrape {
	struct loop *loop;
	const struct config *cfg;
	struct stats *st;
	struct scrape_sink sink;
	CURLM *multi;
	struct loop_timer timeout;
	struct list targets, sockets;
	unsigned ntargets;
	struct rng rng;
	struct key *keys; /* of each pool */
};

struct sock {
	struct list link;
	struct loop_fd fd;
	struct scrape *s;
};

static void reap(struct scrape *s);

/* --- libcurl on the loop --- */

static void on_ready(struct loop_fd *f, uint32_t ev)
{
	struct sock *k = container_of(f, struct sock, fd);
	struct scrape *s = k->s;
	int flags = 0, running;

	if (ev & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		flags |= CURL_CSELECT_IN;
	if (ev & EPOLLOUT)
		flags |= CURL_CSELECT_OUT;
	if (ev & EPOLLERR)
		flags |= CURL_CSELECT_ERR;
	curl_multi_socket_action(s->multi, f->fd, flags, &running);
	reap(s);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *per_socket)
{
	struct scrape *s = arg;
	struct sock *k = per_socket;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	if (what == CURL_POLL_REMOVE) {
		if (k) {
			loop_fd_del(&k->fd);
			list_del(&k->link);
			free(k);
			curl_multi_assign(s->multi, fd, NULL);
		}
		return 0;
	}
	if (k)
		return loop_fd_mod(&k->fd, events) ? -1 : 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -1;
	k->s = s;
	k->fd = (struct loop_fd){ .ready = on_ready, .fd = -1 };
	if (loop_fd_add(s->loop, &k->fd, fd, events)) {
		free(k);
		return -1;
	}
	list_add(&s->sockets, &k->link);
	curl_multi_assign(s->multi, fd, k);
	return 0;
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
	struct scrape *s = arg;

	if (ms < 0) {
		loop_timer_del(s->loop, &s->timeout);
		return 0;
	}
	return loop_timer_set(s->loop, &s->timeout, time_mono() + (uint64_t)ms * NS_PER_MS) ? -1 : 0;
}

static void on_fire(struct loop_timer *t)
{
	struct scrape *s = container_of(t, struct scrape, timeout);
	int running;

	curl_multi_socket_action(s->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(s);
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct job *j = arg;

	n *= size;
	if (buf_len(&j->body) + n > BODY_MAX || buf_put(&j->body, p, n))
		return 0;
	return n;
}

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

/* The pool's key: read again now and then, so that it can be rotated. */
static const char *key_of(const struct job *j)
{
	struct scrape *s = j->t->s;
	struct key *k = &s->keys[j->t->pod->pool];
	const char *file = pool_of(j)->api_key_file;
	ssize_t n;
	int fd;

	if (!file)
		return NULL;
	if (k->read_ns && loop_now(s->loop) - k->read_ns < KEY_INTERVAL)
		return k->text[0] ? k->text : NULL;
	k->read_ns = loop_now(s->loop);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, k->text, sizeof(k->text) - 1);
	if (fd >= 0)
		close(fd);
	k->text[n > 0 ? n : 0] = '\0';
	k->text[strcspn(k->text, "\r\n")] = '\0';
	return k->text[0] ? k->text : NULL;
}

static long timeout_of(const struct job *j)
{
	return j->what == W_HEALTH ? (long)(pool_of(j)->health_timeout / NS_PER_MS) : TIMEOUT_MS;
}

static void again(struct job *j)
{
	struct scrape *s = j->t->s;
	uint64_t every = MODELS_INTERVAL;

	if (j->what == W_METRICS)
		every = pool_of(j)->scrape_interval;
	else if (j->what == W_HEALTH)
		every = pool_of(j)->health_interval;
	every = (uint64_t)((double)every * (0.9 + 0.2 * rng_unit(&s->rng)));
	(void)loop_timer_set(s->loop, &j->due, time_mono() + every);
}

static CURL *easy_new(struct job *j)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	curl_easy_setopt(c, CURLOPT_PRIVATE, j);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, j->curl_error);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, j);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, ""); /* whatever the environment says, pods are near */
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
#else
	curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTP);
#endif
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "kvsteer");
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, timeout_of(j));
	curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
	return c;
}

static void failed(struct job *j, const char *why);

static void due(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, due);
	const char *key;
	char url[256];

	if (j->running)
		return;
	if (!j->easy)
		j->easy = easy_new(j);
	if (!j->easy) {
		failed(j, "out of memory");
		again(j);
		return;
	}
	url_of(j, url, sizeof(url)); /* discovery may have changed it */
	curl_easy_setopt(j->easy, CURLOPT_URL, url);
	key = key_of(j);
	curl_easy_setopt(j->easy, CURLOPT_HTTPAUTH, key ? CURLAUTH_BEARER : CURLAUTH_NONE);
	curl_easy_setopt(j->easy, CURLOPT_XOAUTH2_BEARER, key);
	buf_consume(&j->body, buf_len(&j->body));
	j->curl_error[0] = '\0';
	j->running = true;
	/* It goes on at once with on_timeout(0). */
	curl_multi_add_handle(j->t->s->multi, j->easy);
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
	struct pod_sample sample;

	metrics_read(buf_str(&j->body), (struct str){ NULL, 0 }, &sample, &engine);
	if (engine == ENGINE_UNKNOWN) {
		failed(j, "200, but no metric of a known engine");
		return;
	}
	well(j);
	stats_inc(s->st, STATS_SCRAPE_OK);
	sample.at_ns = loop_now(s->loop);
	pod_set_sample(p, &sample);
	p->engine = engine;
}

static void take_models(struct job *j)
{
	struct model_list m;

	if (model_list_read(buf_str(&j->body), &m)) {
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

	if (p->engine != ENGINE_VLLM || t->jobs[W_VERSION].running || (asked && (p->version[0] || !retry)))
		return;
	t->version_asked = true;
	t->version_of = start;
	due(&t->jobs[W_VERSION].due);
}

static void take(struct job *j)
{
	switch (j->what) {
	case W_METRICS:
		take_metrics(j);
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
		(void)version_read(buf_str(&j->body), j->t->pod->version, sizeof(j->t->pod->version));
		break;
	}
}

static void refused(struct job *j, long status)
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
		snprintf(why, sizeof(why), "status %ld", status);
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

static void done(struct job *j, CURLcode code)
{
	struct target *t = j->t;
	struct scrape *s = t->s;
	long status = 0;

	curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(s->multi, j->easy);
	j->running = false;
	if (code == CURLE_WRITE_ERROR)
		failed(j, "the answer is larger than 4 MiB");
	else if (code)
		failed(j, j->curl_error[0] ? j->curl_error : curl_easy_strerror(code));
	else if (status >= 200 && status < 300)
		take(j);
	else
		refused(j, status);
	show_error(t);
	buf_free(&j->body); /* pages are some 60 KB, and pods many */
	if (j->what != W_VERSION)
		again(j);
	if (s->sink.changed)
		s->sink.changed(s->sink.arg, t->pod);
}

static void reap(struct scrape *s)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(s->multi, &left))) {
		CURLcode code = m->data.result;
		struct job *j = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&j);
		done(j, code);
	}
}

/* --- pods --- */

static void connections(struct scrape *s)
{
	curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS, (long)(s->ntargets * W_N + 16));
}

void scrape_add(struct scrape *s, struct pod *p)
{
	struct target *t = calloc(1, sizeof(*t));

	if (!t)
		return;
	t->s = s;
	t->pod = pod_ref(p);
	t->version_of = NAN;
	list_add_tail(&s->targets, &t->link);
	s->ntargets++;
	connections(s);
	for (unsigned i = 0; i < W_N; i++) {
		struct job *j = &t->jobs[i];

		j->t = t;
		j->what = (enum what)i;
		loop_timer_init(&j->due, due);
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
		if (j->running)
			curl_multi_remove_handle(s->multi, j->easy);
		if (j->easy)
			curl_easy_cleanup(j->easy);
		buf_free(&j->body);
	}
	list_del(&t->link);
	s->ntargets--;
	pod_unref(t->pod);
	free(t);
}

void scrape_remove(struct scrape *s, struct pod *p)
{
	list_for_each (it, &s->targets) {
		struct target *t = container_of(it, struct target, link);

		if (t->pod == p) {
			target_free(t);
			connections(s);
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
	list_init(&s->sockets);
	loop_timer_init(&s->timeout, on_fire);
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(s);
		errno = ENOMEM;
		return NULL;
	}
	s->keys = calloc(cfg->npools ? cfg->npools : 1, sizeof(*s->keys));
	s->multi = curl_multi_init();
	if (!s->keys || !s->multi) {
		scrape_stop(s);
		errno = ENOMEM;
		return NULL;
	}
	curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, s);
	curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, s);
	return s;
}

void scrape_stop(struct scrape *s)
{
	if (!s)
		return;
	list_for_each_safe (it, tmp, &s->targets)
		target_free(container_of(it, struct target, link));
	if (s->multi)
		curl_multi_cleanup(s->multi);
	/* Idle connections that libcurl did not watch any more have no sock. */
	list_for_each_safe (it, tmp, &s->sockets) {
		struct sock *k = container_of(it, struct sock, link);

		loop_fd_del(&k->fd);
		list_del(&k->link);
		free(k);
	}
	loop_timer_del(s->loop, &s->timeout);
	curl_global_cleanup();
	free(s->keys);
	free(s);
}
