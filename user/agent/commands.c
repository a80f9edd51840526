/* SPDX-License-Identifier: Apache-2.0
 * What the control socket answers: one function per command of the table at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/time.h"

#define TAIL_EVERY  (100 * NS_PER_MS)
#define LOOKUP_HITS 512

/* --- pods --- */

static const char *state_of(const struct pod *p)
{
	uint32_t down = pod_down_now(p, time_mono());

	return down & POD_DOWN_REMOVED	 ? "removed"
	       : down & POD_DOWN_DRAINED ? "draining"
	       : down & POD_DOWN_HEALTH	 ? "down"
	       : down & POD_DOWN_EJECTED ? "ejected"
	       : down & POD_DOWN_ASLEEP	 ? "asleep"
	       : down & POD_DOWN_BACKOFF ? "backoff"
	       : pod_weight(p) == 0	 ? "draining"
					 : "up";
}

static const char *why_of(const struct pod *p)
{
	uint32_t down = pod_down_now(p, time_mono());

	return down & POD_DOWN_HEALTH	 ? p->last_error
	       : down & POD_DOWN_DRAINED ? "an operator drained it"
	       : down & POD_DOWN_EJECTED ? "failed several requests in a row"
	       : down & POD_DOWN_ASLEEP	 ? "its engine sleeps"
	       : down & POD_DOWN_BACKOFF ? "it asked for a pause (Retry-After)"
	       : pod_weight(p) == 0	 ? "its weight is 0"
					 : "";
}

static const char *role_name(enum pod_role r)
{
	return r == ROLE_PREFILL ? "prefill" : r == ROLE_DECODE ? "decode" : "both";
}

static const char *engine_name(enum pod_engine e)
{
	static const char *const names[] = { [ENGINE_UNKNOWN] = "unknown",
					     [ENGINE_VLLM] = "vllm",
					     [ENGINE_SGLANG] = "sglang",
					     [ENGINE_TRTLLM] = "trtllm",
					     [ENGINE_TRITON] = "triton" };

	return names[e];
}

static const char *index_state(const struct pod *p)
{
	return atomic_load(&p->index_live)    ? "live"
	       : atomic_load(&p->index_stale) ? "stale"
	       : p->spec.events[0]	      ? "connecting"
					      : "none";
}

static void pod_blocks(struct agent *a, const struct pod *p, uint64_t *ret_blocks, uint64_t *ret_guessed)
{
	*ret_blocks = *ret_guessed = 0;
	for (unsigned i = 0; i < p->spec.ranks && p->holder[i] < INDEX_HOLDERS; i++) {
		uint64_t b, g;

		index_holder_stats(a->index, p->holder[i], &b, &g);
		*ret_blocks += b;
		*ret_guessed += g;
	}
}

static void write_common(struct agent *a, struct pod *p, struct jw *w)
{
	struct pod_sample unknown = { .running = NAN, .waiting = NAN, .kv_usage = NAN };
	const struct pod_sample *s = p->sample.at_ns ? &p->sample : &unknown;
	uint64_t blocks, guessed;
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	pod_blocks(a, p, &blocks, &guessed);
	jw_kstr(w, "name", p->name);
	jw_kstr(w, "pool", a->cfg->pools[p->pool].name);
	jw_kstr(w, "role", role_name(pod_role(p)));
	jw_kstr(w, "state", state_of(p));
	jw_kstr(w, "why", why_of(p));
	jw_ku64(w, "inflight", v.n);
	jw_ku64(w, "waiting", v.waiting);
	jw_knum(w, "running", s->running);
	jw_knum(w, "engine_waiting", s->waiting);
	jw_knum(w, "kv_usage", s->kv_usage);
	jw_kstr(w, "index", index_state(p));
	jw_ku64(w, "blocks", blocks);
	jw_ku64(w, "predicted_tokens", atomic_load(&p->predicted_tokens));
	jw_ku64(w, "reported_tokens", atomic_load(&p->reported_tokens));
	jw_ku64(w, "requests", p->ledger.total);
	jw_ku64(w, "failed", p->ledger.failed);
	jw_kstr(w, "engine", engine_name(p->engine));
	jw_key(w, "models");
	jw_arr(w);
	for (unsigned i = 0; i < p->nmodels; i++)
		jw_str(w, p->models[i]);
	jw_end_arr(w);
}

/* "a,b" as ["a", "b"]. */
static void write_names(struct jw *w, const char *key, const char *names)
{
	jw_key(w, key);
	jw_arr(w);
	for (size_t n; *names; names += n + (names[n] == ',')) {
		n = strcspn(names, ",");
		if (n)
			jw_strn(w, (struct str){ names, n });
	}
	jw_end_arr(w);
}

/* Upper bound of the bucket in which the <q>-th part of all lies, in seconds; NAN: nothing was counted. */
static double quantile(const struct kvs_times *t, double q)
{
	uint64_t all = 0, upto = 0;

	for (unsigned i = 0; i < KVS_TIME_BUCKETS; i++)
		all += t->count[i];
	for (unsigned i = 0; i < KVS_TIME_BUCKETS && all; i++) {
		upto += t->count[i];
		if ((double)upto >= q * (double)all)
			return (double)(UINT64_C(1) << i) * 1e-6;
	}
	return NAN;
}

/* As the kernel saw it, of answers that were spliced. */
static void write_times(struct agent *a, const struct pod *p, struct jw *w)
{
	struct kvs_pod_times t = { 0 };

	datapath_times(a->datapath, &p->spec.addr, &t);
	jw_knum(w, "spliced_ttft_p50_s", quantile(&t.ttft, 0.5));
	jw_knum(w, "spliced_ttft_p99_s", quantile(&t.ttft, 0.99));
	jw_knum(w, "spliced_gap_p50_s", quantile(&t.gap, 0.5));
	jw_knum(w, "spliced_gap_p99_s", quantile(&t.gap, 0.99));
}

static void write_details(struct agent *a, struct pod *p, struct jw *w)
{
	uint64_t blocks, guessed;
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	pod_blocks(a, p, &blocks, &guessed);
	jw_ku64(w, "id", p->id);
	jw_ku64(w, "generation", p->generation);
	jw_kstr(w, "version", p->version);
	jw_kstr(w, "last_error", p->last_error);
	jw_ku64(w, "weight", pod_weight(p));
	jw_ku64(w, "ranks", p->spec.ranks);
	jw_kstr(w, "events", p->spec.events);
	jw_kstr(w, "replay", p->spec.replay);
	jw_kstr(w, "namespace", agent_base_name(a, p));
	if (p->adapters.known) {
		jw_ku64(w, "max_adapters", p->adapters.max);
		write_names(w, "running_adapters", p->adapters.running);
		write_names(w, "waiting_adapters", p->adapters.waiting);
	}
	jw_ku64(w, "block_size", p->sample.block_size);
	jw_ku64(w, "num_blocks", p->sample.num_blocks);
	jw_key(w, "rate_s_per_token");
	jw_num(w, v.t > 0 ? v.s / v.t : NAN);
	jw_knum(w, "backlog_s", v.backlog);
	jw_ku64(w, "ejections", atomic_load(&p->ejections));
	jw_ku64(w, "garbage", atomic_load(&p->garbage));
	jw_ku64(w, "speculative", guessed);
	write_times(a, p, w);
}

static enum ctl_code pod_list(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;

	jw_arr(w);
	list_for_each (it, endpoints_pods(a->endpoints)) {
		jw_obj(w);
		write_common(a, container_of(it, struct pod, link), w);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	return CTL_OK;
}

static struct pod *named_pod(struct agent *a, json_t *args, struct buf *err, enum ctl_code *ret_code)
{
	const char *name = json_string_value(json_object_get(args, "pod"));
	struct pod *p;

	if (!name) {
		buf_puts(err, "\"pod\" is missing: ADDR:PORT as `kvsteer pod list` shows it");
		*ret_code = CTL_USAGE;
		return NULL;
	}
	p = endpoints_find(a->endpoints, str_of(name));
	if (!p) {
		buf_printf(err, "no pod is called \"%s\"; `kvsteer pod list` shows their names", name);
		*ret_code = CTL_NOT_FOUND;
	}
	return p;
}

static enum ctl_code pod_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	enum ctl_code code = CTL_OK;
	struct pod *p = named_pod(a, args, err, &code);

	if (!p)
		return code;
	jw_obj(w);
	write_common(a, p, w);
	write_details(a, p, w);
	jw_end_obj(w);
	return CTL_OK;
}

static enum ctl_code set_drained(struct agent *a, json_t *args, struct jw *w, struct buf *err, bool on)
{
	enum ctl_code code = CTL_OK;
	struct pod *p = named_pod(a, args, err, &code);

	if (!p)
		return code;
	pod_set_down(p, POD_DOWN_DRAINED, on);
	loop_defer(a->loop, &a->publish);
	jw_obj(w);
	jw_kstr(w, "pod", p->name);
	jw_kstr(w, "state", state_of(p));
	jw_end_obj(w);
	return CTL_OK;
}

static enum ctl_code pod_drain(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	return set_drained(arg, args, w, err, true);
}

static enum ctl_code pod_undrain(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	return set_drained(arg, args, w, err, false);
}

/* --- the gateway --- */

static uint64_t rss_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long all, rss = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lu %lu", &all, &rss) != 2)
		rss = 0;
	fclose(f);
	return (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void write_warnings(struct agent *a, struct jw *w)
{
	char m[512];

	jw_key(w, "warnings");
	jw_arr(w);
	if (a->draining)
		jw_str(w, "draining: no new connections are taken");
	if (datapath_why(a->datapath)[0] && strcmp(a->cfg->datapath_mode, "off") != 0) {
		snprintf(m, sizeof(m), "kernel data path: %.400s", datapath_why(a->datapath));
		jw_str(w, m);
	}
	for (unsigned i = 0; i < a->cfg->npools; i++) {
		if (a->problems[i]) {
			snprintf(m, sizeof(m), "pool %.60s: discovery: %.400s", a->cfg->pools[i].name, a->problems[i]);
			jw_str(w, m);
		}
		if (!a->shared.pools[i].vocab) {
			snprintf(m, sizeof(m),
				 "pool %.60s: no model-path, so KV events cannot be read and prefixes are approximate",
				 a->cfg->pools[i].name);
			jw_str(w, m);
		}
	}
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		if (pod_down_now(p, time_mono()) & ~(uint32_t)POD_DOWN_DRAINED) {
			snprintf(m, sizeof(m), "pod %s is %s: %.200s", p->name, state_of(p), why_of(p));
			jw_str(w, m);
		}
	}
	jw_end_arr(w);
}

static enum ctl_code status(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	uint64_t predicted = 0, reported = 0, total = 0, usable = 0;
	uint64_t prompt = stats_sum(a->stats, a->nshards, STATS_PROMPT_TOKENS);
	struct index_stats x;

	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		total++;
		usable += pod_usable(p, time_mono());
		predicted += atomic_load(&p->predicted_tokens);
		reported += atomic_load(&p->reported_tokens);
	}
	index_stats(a->index, &x);
	jw_obj(w);
	jw_kstr(w, "version", KVS_VERSION);
	jw_ku64(w, "pid", (uint64_t)getpid());
	jw_knum(w, "uptime_s", (double)(time_mono() - a->started_ns) / 1e9);
	jw_key(w, "listeners");
	jw_arr(w);
	for (unsigned i = 0; i < a->cfg->nlisteners; i++)
		jw_str(w, a->cfg->listeners[i].address);
	jw_end_arr(w);
	jw_kstr(w, "admin", a->cfg->admin);
	jw_ku64(w, "workers", a->workers);
	jw_key(w, "datapath");
	jw_obj(w);
	jw_kstr(w, "mode", a->cfg->datapath_mode);
	jw_kstr(w, "carrier", datapath_carrier(a->datapath));
	jw_kbool(w, "kernel", datapath_kernel(a->datapath));
	jw_end_obj(w);
	jw_key(w, "pods");
	jw_obj(w);
	jw_ku64(w, "total", total);
	jw_ku64(w, "usable", usable);
	jw_end_obj(w);
	jw_ku64(w, "streams", atomic_load(&a->shared.streams));
	jw_ku64(w, "connections", atomic_load(&a->shared.connections));
	jw_ku64(w, "requests", stats_sum(a->stats, a->nshards, STATS_REQ));
	jw_ku64(w, "predicted_tokens", predicted);
	jw_ku64(w, "reported_tokens", reported);
	jw_key(w, "hit_rate");
	jw_num(w, prompt ? (double)reported / (double)prompt : NAN);
	jw_ku64(w, "rss_bytes", rss_bytes());
	jw_key(w, "index");
	jw_obj(w);
	jw_ku64(w, "nodes", x.nodes);
	jw_ku64(w, "bytes", x.bytes);
	jw_ku64(w, "max_bytes", x.max_bytes);
	jw_end_obj(w);
	write_warnings(a, w);
	jw_end_obj(w);
	return CTL_OK;
}

static enum ctl_code config_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	struct buf yaml = { 0 };

	if (config_write_yaml(a->cfg, &yaml)) {
		buf_free(&yaml);
		buf_puts(err, "out of memory");
		return CTL_FAILED;
	}
	jw_obj(w);
	jw_key(w, "yaml");
	jw_strn(w, buf_str(&yaml));
	jw_end_obj(w);
	buf_free(&yaml);
	return CTL_OK;
}

static enum ctl_code drain(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	agent_drain(arg);
	jw_obj(w);
	jw_end_obj(w);
	return CTL_OK;
}

static enum ctl_code reload(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct buf report = { 0 };
	int r = agent_reload(arg, &report);

	if (r) {
		buf_put(err, buf_data(&report), buf_len(&report));
		buf_free(&report);
		return CTL_FAILED;
	}
	jw_obj(w);
	jw_key(w, "changed");
	jw_arr(w);
	for (struct str s = buf_str(&report); s.n;) {
		const char *nl = memchr(s.p, '\n', s.n);
		size_t n = nl ? (size_t)(nl - s.p) : s.n;

		jw_strn(w, (struct str){ s.p, n });
		s.p += n + (nl != NULL);
		s.n -= n + (nl != NULL);
	}
	jw_end_arr(w);
	jw_end_obj(w);
	buf_free(&report);
	return CTL_OK;
}

/* --- index --- */

static enum ctl_code show_index_stats(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	struct index_stats x;

	index_stats(a->index, &x);
	jw_obj(w);
	jw_ku64(w, "nodes", x.nodes);
	jw_ku64(w, "keys", x.keys);
	jw_ku64(w, "bytes", x.bytes);
	jw_ku64(w, "max_bytes", x.max_bytes);
	jw_ku64(w, "stored", x.stored);
	jw_ku64(w, "removed", x.removed);
	jw_ku64(w, "cleared", x.cleared);
	jw_ku64(w, "unknown_parent", x.unknown_parent);
	jw_ku64(w, "evicted", x.evicted);
	jw_ku64(w, "speculated", x.speculated);
	jw_ku64(w, "expired", x.expired);
	jw_ku64(w, "unreachable", x.unreachable);
	jw_end_obj(w);
	return CTL_OK;
}

static const struct pod *pod_of_holder(struct agent *a, unsigned holder)
{
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		for (unsigned i = 0; i < p->spec.ranks; i++)
			if (p->holder[i] == holder)
				return p;
	}
	return NULL;
}

static enum ctl_code index_lookup(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	json_t *text = json_object_get(args, "text");
	const char *model = json_string_value(json_object_get(args, "model"));
	struct index_hit *hits;
	unsigned n;

	if (!json_is_string(text)) {
		buf_puts(err, "\"text\" is missing: the prompt as the engine tokenizes it");
		return CTL_USAGE;
	}
	if (!model) { /* the one that the pods serve */
		struct list *pods = endpoints_pods(a->endpoints);

		model = list_empty(pods) ? "" : agent_base_name(a, container_of(pods->next, struct pod, link));
	}
	hits = calloc(LOOKUP_HITS, sizeof(*hits));
	if (!hits) {
		buf_puts(err, "out of memory");
		return CTL_FAILED;
	}
	n = proxy_lookup(&a->shared, a->reader, str_of(model),
			 (struct str){ json_string_value(text), json_string_length(text) }, hits, LOOKUP_HITS);
	jw_arr(w);
	for (unsigned i = 0; i < n; i++) {
		const struct pod *p = pod_of_holder(a, hits[i].holder);

		if (!p)
			continue;
		jw_obj(w);
		jw_kstr(w, "pod", p->name);
		jw_ku64(w, "tokens", hits[i].tokens);
		jw_ku64(w, "cpu_tokens", hits[i].in_tier[TIER_CPU]);
		jw_ku64(w, "disk_tokens", hits[i].in_tier[TIER_DISK]);
		jw_ku64(w, "blocks", hits[i].blocks);
		jw_ku64(w, "bytes", hits[i].bytes);
		jw_kbool(w, "exact", hits[i].exact);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	free(hits);
	return CTL_OK;
}

/* --- decisions --- */

union record {
	struct decision d;
	char room[DECISION_SIZE];
};

static enum ctl_code decision_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	const char *id = json_string_value(json_object_get(args, "request"));
	union record rec;

	if (!id) {
		buf_puts(err, "\"request\" is missing: the x-request-id of an answer");
		return CTL_USAGE;
	}
	if (proxy_decision(a->proxy, str_of(id), &rec.d)) {
		buf_printf(err, "no decision for request \"%s\" is kept (the last %" PRIu64 " are)", id,
			   a->cfg->decisions);
		return CTL_NOT_FOUND;
	}
	decision_write(&rec.d, w);
	return CTL_OK;
}

struct tail {
	struct list link;
	struct agent *a;
	struct ctl_conn *c;
};

static void tail_closed(void *arg, struct ctl_conn *c)
{
	struct tail *t = arg;

	list_del(&t->link);
	free(t);
}

static void tail_fire(struct loop_timer *timer)
{
	struct agent *a = container_of(timer, struct agent, tail);
	union record rec;

	while (proxy_next_decision(a->proxy, &a->tail_serial, &rec.d)) {
		struct buf b = { 0 };
		struct jw w;

		jw_init(&w, &b);
		decision_write(&rec.d, &w);
		if (!jw_err(&w))
			list_for_each_safe (it, tmp, &a->tails)
				ctl_conn_line(container_of(it, struct tail, link)->c, buf_str(&b));
		buf_free(&b);
	}
	if (!list_empty(&a->tails))
		loop_timer_set(a->loop, timer, loop_now(a->loop) + TAIL_EVERY);
}

void agent_tails_init(struct agent *a)
{
	list_init(&a->tails);
	loop_timer_init(&a->tail, tail_fire);
}

/* The newest <n> at once, then each new one, as lines: the command itself has no answer of its own. */
static enum ctl_code decision_tail(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	json_int_t n = json_integer_value(json_object_get(args, "n"));
	uint64_t newest = proxy_decision_serial(a->proxy);
	struct tail *t = calloc(1, sizeof(*t));

	if (!t) {
		buf_puts(err, "out of memory");
		return CTL_FAILED;
	}
	t->a = a;
	t->c = c;
	if (list_empty(&a->tails)) {
		a->tail_serial = n > 0 && (uint64_t)n < newest ? newest - (uint64_t)n : n > 0 ? 0 : newest;
		loop_timer_set(a->loop, &a->tail, loop_now(a->loop) + NS_PER_MS);
	}
	list_add_tail(&a->tails, &t->link);
	ctl_conn_keep(c, tail_closed, t);
	return CTL_OK;
}

/* --- splices --- */

static enum ctl_code flow_code(int r)
{
	return r == 0 ? CTL_OK : r == -ENOENT ? CTL_NOT_FOUND : CTL_FAILED;
}

static void trim(struct buf *err)
{
	while (buf_len(err) && buf_data(err)[buf_len(err) - 1] == '\n')
		err->len--;
}

static enum ctl_code list_flows(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	enum ctl_code code = flow_code(flow_list(a->datapath, w, err));

	trim(err);
	return code;
}

static uint32_t flow_id(json_t *args, struct buf *err)
{
	json_int_t id = json_integer_value(json_object_get(args, "id"));

	if (id > 0 && id <= UINT32_MAX)
		return (uint32_t)id;
	buf_puts(err, "\"id\" is missing: a splice's number as `kvsteer flow list` shows it");
	return 0;
}

static enum ctl_code show_flow(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	uint32_t id = flow_id(args, err);
	enum ctl_code code;

	if (!id)
		return CTL_USAGE;
	code = flow_code(flow_show(((struct agent *)arg)->datapath, id, w, err));
	trim(err);
	return code;
}

/* One of ours is ended by its worker, an orphan here. The answer is how it was. */
static enum ctl_code kill_flow(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	uint32_t id = flow_id(args, err);
	int r;

	if (!id)
		return CTL_USAGE;
	r = flow_show(a->datapath, id, w, err);
	if (!r && carrier_kill(a->datapath, id))
		r = flow_kill(a->datapath, id, err);
	trim(err);
	return flow_code(r);
}

const struct ctl_cmd agent_commands[] = {
	{ "status", status },
	{ "pod.list", pod_list },
	{ "pod.show", pod_show },
	{ "pod.drain", pod_drain },
	{ "pod.undrain", pod_undrain },
	{ "decision.tail", decision_tail },
	{ "decision.show", decision_show },
	{ "index.stats", show_index_stats },
	{ "index.lookup", index_lookup },
	{ "config.show", config_show },
	{ "flow.list", list_flows },
	{ "flow.show", show_flow },
	{ "flow.kill", kill_flow },
	{ "reload", reload },
	{ "drain", drain },
};
const unsigned agent_ncommands = sizeof(agent_commands) / sizeof(agent_commands[0]);
