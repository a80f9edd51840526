/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"

#define TICK_EVERY NS_PER_S

/* --- pods --- */

static void free_holders(struct agent *a, struct pod *p)
{
	for (unsigned i = 0; i < p->spec.ranks; i++)
		if (p->holder[i] < INDEX_HOLDERS)
			a->holders[p->holder[i] / 64] &= ~(UINT64_C(1) << p->holder[i] % 64);
}

static int take_holders(struct agent *a, struct pod *p)
{
	unsigned got = 0;

	for (unsigned i = 0; i < POD_RANKS_MAX; i++)
		p->holder[i] = INDEX_HOLDERS; /* none */
	for (unsigned h = 0; h < INDEX_HOLDERS && got < p->spec.ranks; h++)
		if (!(a->holders[h / 64] >> h % 64 & 1)) {
			a->holders[h / 64] |= UINT64_C(1) << h % 64;
			a->process_start[h] = NAN;
			p->holder[got++] = (uint16_t)h;
		}
	return got == p->spec.ranks ? 0 : -ENOSPC;
}

const char *agent_base_name(const struct agent *a, const struct pod *p)
{
	const struct config_pool *cp = &a->cfg->pools[p->pool];

	if (p->model_root[0])
		return p->model_root;
	if (p->nmodels)
		return p->models[0];
	return cp->nmodels ? cp->models[0] : "";
}

static void pod_added(void *arg, struct pod *p)
{
	struct agent *a = arg;

	if (take_holders(a, p))
		log_warn("no index slot is free: the pod's prefixes are not followed", "pod", p->name);
	else if (p->spec.events[0])
		events_add(a->events, p, a->shared.pools[p->pool].vocab, agent_base_name(a, p));
	scrape_add(a->scrape, p);
	log_info("pod added", "pod", p->name, "pool", a->cfg->pools[p->pool].name, "events", p->spec.events);
	loop_defer(a->loop, &a->publish);
}

static void pod_removed(void *arg, struct pod *p)
{
	struct agent *a = arg;

	meter_forget(a, p);
	scrape_remove(a->scrape, p);
	events_remove(a->events, p); /* clears its holders before it can hear of the next pod that gets them */
	free_holders(a, p);
	log_info("pod removed", "pod", p->name, "pool", a->cfg->pools[p->pool].name);
	loop_defer(a->loop, &a->publish);
}

static void pod_respecified(void *arg, struct pod *p)
{
	struct agent *a = arg;

	events_remove(a->events, p);
	if (p->spec.events[0])
		events_add(a->events, p, a->shared.pools[p->pool].vocab, agent_base_name(a, p));
	meter_respecified(a, p);
	scrape_remove(a->scrape, p);
	scrape_add(a->scrape, p);
}

static void publish(struct loop_work *w)
{
	struct agent *a = container_of(w, struct agent, publish);

	if (endpoints_publish(a->endpoints))
		log_warn("out of memory: the pods' state could not be published", "kept", "the one before");
}

static void sync_datapath(struct agent *a)
{
	struct datapath_pod pods[ENDPOINTS_PODS_MAX];
	unsigned n = 0;

	list_for_each (it, endpoints_pods(a->endpoints)) {
		if (n < ENDPOINTS_PODS_MAX)
			pods[n++].addr = container_of(it, struct pod, link)->spec.addr;
	}
	datapath_set_pods(a->datapath, pods, n); /* what it could not do is in datapath_why */
}

/* TC prepares connections to these for splicing. */
static void tell_listeners(struct agent *a)
{
	struct net_addr *addrs = calloc(a->cfg->nlisteners, sizeof(*addrs));
	unsigned n = 0;

	for (unsigned i = 0; addrs && i < a->cfg->nlisteners; i++)
		n += net_addr_parse(str_of(a->cfg->listeners[i].address), &addrs[n]) == 0;
	if (addrs)
		datapath_set_listeners(a->datapath, addrs, n);
	free(addrs);
}

static void discovered(void *arg, unsigned pool, const char *source, const struct pod_spec *specs, unsigned n)
{
	struct agent *a = arg;
	int r = endpoints_set(a->endpoints, pool, source, specs, n);

	if (r < 0)
		log_warn("some pods could not be added", "pool", a->cfg->pools[pool].name, "source", source, "why",
			 strerror(-r));
	sync_datapath(a);
	loop_defer(a->loop, &a->publish);
}

static void discovery_problem(void *arg, unsigned pool, const char *source, const char *why)
{
	struct agent *a = arg;

	free(a->problems[pool]);
	a->problems[pool] = why ? str_dup(str_of(why)) : NULL;
	if (why)
		log_warn("discovery has a problem; the pods known so far stay", "pool", a->cfg->pools[pool].name,
			 "source", source, "why", why);
	else
		log_info("discovery is well again", "pool", a->cfg->pools[pool].name, "source", source);
}

/* A sample, models or health of <p> are new. A process that started anew, or an engine put to sleep, has lost its cache
 * whether or not its events say so. */
static void pod_changed(void *arg, struct pod *p)
{
	struct agent *a = arg;
	unsigned h = p->holder[0];

	if (h < INDEX_HOLDERS && p->sample.at_ns) {
		double start = p->sample.process_start;

		if (isfinite(a->process_start[h]) && isfinite(start) && fabs(a->process_start[h] - start) > 1)
			events_invalidate(a->events, p, "its process started anew");
		else if (p->sample.asleep) /* each time: blocks announced before it slept may still arrive */
			events_invalidate(a->events, p, "the engine sleeps");
		a->process_start[h] = start;
	}
	if (p->spec.events[0] && p->nmodels)
		events_rebase(a->events, p, agent_base_name(a, p));
	loop_defer(a->loop, &a->publish);
}

/* --- start --- */

void agent_tune_pool(struct proxy_pool *pp)
{
	const struct config_pool *c = pp->cfg;
	struct sched_tuning t = { c->tier_cpu, c->tier_disk, (double)c->attention_tokens };

	pp->policy = sched_find(str_of(c->policy));
	pp->tuning = t;
}

/* Without it chats are matched approximately; the log tells, and `kvsteer status` once there are some. */
static void load_chat(struct proxy_pool *pp)
{
	char why[512];

	pp->chat = chat_model_load(pp->cfg->model_path, pp->cfg->chat_template, why, sizeof(why));
	if (pp->chat)
		return;
	if (errno == ENOENT) /* a model that is no chat model has none */
		log_info("chats would be matched approximately", "pool", pp->cfg->name, "why", why);
	else
		log_warn("chats are matched approximately: no template to follow", "pool", pp->cfg->name, "why", why);
	pp->chat_why = str_dup(str_of(why));
}

static int make_pools(struct agent *a)
{
	const struct config *cfg = a->cfg;

	a->shared.pools = calloc(cfg->npools, sizeof(*a->shared.pools));
	a->problems = calloc(cfg->npools, sizeof(*a->problems));
	if (!a->shared.pools || !a->problems)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->npools; i++) {
		struct proxy_pool *pp = &a->shared.pools[i];
		char err[512];

		pp->cfg = &cfg->pools[i];
		agent_tune_pool(pp);
		if (!pp->policy) {
			log_error("no such policy", "pool", cfg->pools[i].name, "policy", cfg->pools[i].policy);
			return -EINVAL;
		}
		atomic_store(&pp->bytes_per_token_q8, 4 * 256);
		if (cfg->pools[i].model_path) {
			pp->vocab = vocab_load(cfg->pools[i].model_path, *cfg->model_cache ? cfg->model_cache : NULL,
					       err, sizeof(err));
			if (!pp->vocab) {
				log_error("the vocabulary cannot be used", "pool", cfg->pools[i].name, "why", err);
				return -errno;
			}
			load_chat(pp);
		}
		if (endpoints_pool_models(a->endpoints, i, cfg->pools[i].models, cfg->pools[i].nmodels))
			return -ENOMEM;
	}
	return 0;
}

static void warn_unwritable(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? str_dup((struct str){ path, (size_t)(slash - path) + 1 }) : NULL;

	if (access(dir ? dir : ".", W_OK))
		log_warn("the index cannot be kept there", "file", path, "why", strerror(errno));
	free(dir);
}

/* With what was kept, if there is something and it is whole; with nothing else. */
static struct kvindex *make_index(struct agent *a)
{
	const char *path = a->cfg->index_keep;
	struct index_secrets secrets;
	int64_t written = 0;
	char why[512], age[24];
	struct kvindex *x;

	if (!*path)
		return index_new(&a->qsbr, a->cfg->memory_index, INDEX_HOLDERS);
	warn_unwritable(path);
	a->kept = index_file_open(path, &secrets, &written, why, sizeof(why));
	if (!a->kept && errno != ENOENT)
		log_warn("the kept index cannot be used: the gateway starts without prefixes", "why", why);
	if (!a->kept)
		return index_new(&a->qsbr, a->cfg->memory_index, INDEX_HOLDERS);
	x = index_new_with(&a->qsbr, a->cfg->memory_index, INDEX_HOLDERS, &secrets);
	if (!x && errno == EINVAL) {
		log_warn("the kept index cannot be used: the gateway starts without prefixes", "why",
			 "its secrets are none");
		index_file_close(a->kept);
		a->kept = NULL;
		return index_new(&a->qsbr, a->cfg->memory_index, INDEX_HOLDERS);
	}
	snprintf(age, sizeof(age), "%lld s", (long long)(time(NULL) - written));
	log_info("the kept index is taken in as stale", "file", path, "age", age);
	return x;
}

static int make_shared(struct agent *a)
{
	struct proxy_shared *sh = &a->shared;

	a->nshards = a->workers + 2;
	a->stats = aligned_alloc(64, a->nshards * sizeof(*a->stats));
	a->truth = truth_new();
	sh->truth = aligned_alloc(64, a->workers * sizeof(*sh->truth));
	sh->ttft = calloc(a->workers, sizeof(*sh->ttft));
	sh->duration = calloc(a->workers, sizeof(*sh->duration));
	sh->decision = calloc(a->workers, sizeof(*sh->decision));
	if (!a->stats || !a->truth || !sh->truth || !sh->ttft || !sh->duration || !sh->decision)
		return -ENOMEM;
	memset(a->stats, 0, a->nshards * sizeof(*a->stats));
	memset(sh->truth, 0, a->workers * sizeof(*sh->truth));
	sh->cfg = a->cfg;
	sh->qsbr = &a->qsbr;
	sh->stats = a->stats;
	a->endpoints = endpoints_new(&a->qsbr);
	a->index = make_index(a);
	if (!a->endpoints || !a->index)
		return -errno;
	sh->endpoints = a->endpoints;
	sh->index = a->index;
	endpoints_hook(a->endpoints, (struct endpoints_hooks){ pod_added, pod_removed, pod_respecified, a });
	return make_pools(a);
}

static int start_sources(struct agent *a)
{
	struct events_keep keep = { a->cfg->index_keep, a->kept, a->cfg->index_interval, a->cfg->index_stale };

	a->events = events_start(a->index, &a->stats[a->workers + 1], *keep.path ? &keep : NULL);
	if (!a->events)
		return -errno;
	a->kept = NULL;
	a->shared.events = a->events;
	for (unsigned i = 0; i < a->cfg->npools; i++)
		if (events_key_file(a->events, i, a->cfg->pools[i].api_key_file))
			return -ENOMEM;
	a->scrape = scrape_start(a->loop, a->cfg, &a->stats[a->workers], (struct scrape_sink){ pod_changed, a });
	if (!a->scrape)
		return -errno;
	a->datapath = datapath_open(&(struct datapath_opts){ .mode = a->cfg->datapath_mode,
							     .devices = a->cfg->datapath_devices,
							     .stall_ns = a->cfg->pools[0].client_idle,
							     .retain_ns = a->cfg->datapath_retain,
							     .splices = (uint32_t)a->cfg->datapath_splices },
				    a->datapath_why);
	if (!a->datapath)
		return -errno;
	if (a->datapath_why[0])
		log_info(datapath_kernel(a->datapath) ? "the kernel takes part, but" : "the kernel takes no part",
			 "why", a->datapath_why);
	tell_listeners(a);
	a->shared.datapath = a->datapath;
	a->discovery = discovery_start(
		a->loop, a->cfg, (struct discovery_sink){ .set = discovered, .problem = discovery_problem, .arg = a });
	if (!a->discovery)
		return -errno;
	publish(&a->publish);
	return 0;
}

static int start_doors(struct agent *a)
{
	struct net_addr addr;
	int r;

	a->ctl = ctl_start(a->loop, a->cfg->control, agent_commands, agent_ncommands, a);
	if (!a->ctl) {
		r = -errno;
		log_error("the control socket cannot be opened", "path", a->cfg->control, "why",
			  r == -EADDRINUSE ? "another kvsteerd answers on it" : strerror(-r));
		return r;
	}
	if (!a->cfg->admin[0])
		return 0;
	r = net_addr_parse(str_of(a->cfg->admin), &addr);
	if (!r) {
		a->admin = admin_start(a->loop, &addr, agent_pages, agent_npages, a);
		r = a->admin ? 0 : -errno;
	}
	if (r)
		log_error("the admin address cannot be opened", "address", a->cfg->admin, "why", strerror(-r));
	return r;
}

static uint64_t times_count(const struct kvs_times *t)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < KVS_TIME_BUCKETS; i++)
		n += t->count[i];
	return n;
}

/* What the kernel has measured, to the scheduler. */
static void read_times(struct agent *a)
{
	bool changed = false;

	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);
		struct kvs_pod_times t;
		struct pod_times totals;

		if (datapath_times(a->datapath, &p->spec.addr, &t))
			continue;
		totals = (struct pod_times){ .ttft_ns = t.ttft.sum_ns,
					     .ttft_n = times_count(&t.ttft),
					     .gap_ns = t.gap.sum_ns,
					     .gap_n = times_count(&t.gap) };
		changed |= pod_set_times(p, &totals);
	}
	if (changed)
		loop_defer(a->loop, &a->publish);
}

static void tick(struct loop_timer *t)
{
	struct agent *a = container_of(t, struct agent, tick);

	uint64_t reqs = stats_sum(a->stats, a->nshards, STATS_REQ);

	datapath_refresh(a->datapath);
	if (!a->draining) {
		read_times(a);
		meter_look(a);
	}
	/* Memory that a burst has left in the allocator goes back once it is over. */
	if (reqs == a->trim_reqs && !a->trimmed)
		malloc_trim(0);
	a->trimmed = reqs == a->trim_reqs;
	a->trim_reqs = reqs;
	if (a->draining && (atomic_load(&a->shared.connections) == 0 || time_mono() >= a->drain_until))
		loop_stop(a->loop);
	loop_timer_set(a->loop, t, loop_now(a->loop) + (a->draining ? NS_PER_S / 20 : TICK_EVERY));
}

/* Bodies of some hundred KB come and go with each request: keep their pages instead of faulting them in anew. */
static void tune_malloc(void)
{
	mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the most that it takes */
	mallopt(M_TRIM_THRESHOLD, 16 << 20);
	mallopt(M_ARENA_TEST, 4);
}

static void raise_fd_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

struct agent *agent_start(struct loop *l, struct config *cfg)
{
	struct agent *a = calloc(1, sizeof(*a));
	char err[256] = "";
	int r = -ENOMEM;
	char n[16];

	if (!a) {
		config_free(cfg);
		return NULL;
	}
	a->loop = l;
	a->cfg = cfg;
	a->started_ns = time_mono();
	a->workers = cfg->workers ? (unsigned)cfg->workers : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (a->workers > PROXY_WORKERS_MAX) /* so many processors */
		a->workers = PROXY_WORKERS_MAX;
	a->reader = a->workers;
	qsbr_init(&a->qsbr, a->workers + 1);
	loop_work_init(&a->publish, publish);
	loop_timer_init(&a->tick, tick);
	agent_tails_init(a);
	tune_malloc();
	raise_fd_limit();
	r = make_shared(a);
	if (!r)
		r = start_sources(a);
	if (!r)
		r = start_doors(a);
	if (!r) {
		a->proxy = proxy_start(&a->shared, a->workers, err, sizeof(err));
		r = a->proxy ? 0 : -errno;
		if (err[0])
			log_error("the gateway cannot start", "why", err);
	}
	if (r) {
		if (!err[0])
			log_error("the gateway cannot start", "why", strerror(-r));
		agent_free(a);
		errno = -r;
		return NULL;
	}
	loop_timer_set(l, &a->tick, time_mono() + TICK_EVERY);
	a->ready = true;
	snprintf(n, sizeof(n), "%u", a->workers);
	log_info("serving", "version", KVS_VERSION, "address", cfg->listeners[0].address, "workers", n);
	notify_systemd("READY=1");
	return a;
}

void agent_drain(struct agent *a)
{
	if (a->draining)
		return;
	a->draining = true;
	a->ready = false;
	a->drain_until = time_mono() + a->cfg->drain_timeout;
	log_info("draining", "address", a->cfg->listeners[0].address);
	notify_systemd("STOPPING=1");
	proxy_drain(a->proxy);
	datapath_drain(a->datapath);
	loop_timer_set(a->loop, &a->tick, loop_now(a->loop) + NS_PER_S / 20);
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	if (proxy_stop(a->proxy)) {
		log_info("streams are left to the kernel");
		events_stop(a->events); /* keeps the index; its sockets are no stream's */
		return; /* sockets must close with the process, not before: so the kernel knows them for orphans */
	}
	admin_stop(a->admin);
	ctl_stop(a->ctl);
	discovery_stop(a->discovery);
	scrape_stop(a->scrape);
	events_stop(a->events);
	index_file_close(a->kept);
	datapath_close(a->datapath, false); /* programs and counts outlive the daemon */
	loop_timer_del(a->loop, &a->tick);
	loop_timer_del(a->loop, &a->tail);
	list_del(&a->publish.link);
	endpoints_free(a->endpoints);
	index_free(a->index);
	for (unsigned i = 0; i < a->cfg->npools; i++) {
		if (a->shared.pools) {
			vocab_unref(a->shared.pools[i].vocab);
			chat_model_free(a->shared.pools[i].chat);
			free(a->shared.pools[i].chat_why);
		}
		if (a->problems)
			free(a->problems[i]);
	}
	free(a->shared.pools);
	free(a->problems);
	truth_free(a->truth);
	free(a->shared.truth);
	free(a->shared.ttft);
	free(a->shared.duration);
	free(a->shared.decision);
	free(a->stats);
	config_free(a->cfg);
	free(a);
}
