/* SPDX-License-Identifier: Apache-2.0
 * What the control socket answers: the table, and the commands about the gateway as a whole.
 */
#include "agent/commands.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/time.h"

struct drift {
	const struct pod *pod;
	struct jw *w;
};

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

static void write_drift(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v)
{
	struct drift *d = arg;
	char m[768];

	if (!v->doubted || truth_cause_quiet(v->cause))
		return;
	snprintf(m, sizeof(m), "pod %s: predictions for %s of %s do not hold (%s): %s; %s", d->pod->name,
		 truth_kind_name(kind), row->name, truth_cause_name(v->cause), truth_cause_text(v->cause),
		 truth_cause_fix(v->cause));
	jw_str(d->w, m);
}

/* Why its chats are approximate, if they are for what its engine is. */
static void write_rules(struct agent *a, const struct pod *p, struct jw *w)
{
	const struct proxy_pool *pool = &a->shared.pools[p->pool];
	bool vllm = p->engine <= ENGINE_VLLM;
	char m[400], why[160];

	if (!pool->chat || !atomic_load(&pool->chats_approximate) || atomic_load(&p->chat_lacks) != CHAT_RULES_UNKNOWN)
		return;
	if (vllm)
		chat_rules_lacking(p->version, why, sizeof(why));
	snprintf(m, sizeof(m), "pool %.60s: chats are approximate: pod %s: %s", pool->cfg->name, p->name,
		 vllm ? why : "what its engine does to a chat is not known, only vLLM's rules are");
	jw_str(w, m);
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
	for (unsigned i = 0; i < a->cfg->npools; i++)
		if (a->shared.pools[i].chat_why && atomic_load(&a->shared.pools[i].chats_approximate)) {
			snprintf(m, sizeof(m), "pool %.60s: chats are approximate: %.400s", a->cfg->pools[i].name,
				 a->shared.pools[i].chat_why);
			jw_str(w, m);
		}
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		write_rules(a, p, w);
		meter_each(a, p, write_drift, &(struct drift){ p, w });
		if (pod_down_now(p, time_mono()) & ~(uint32_t)POD_DOWN_DRAINED) {
			snprintf(m, sizeof(m), "pod %s is %s: %.200s", p->name, pod_state_name(p), pod_state_why(p));
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

const struct ctl_cmd agent_commands[] = {
	{ "status", status },
	{ "pod.list", cmd_pod_list },
	{ "pod.show", cmd_pod_show },
	{ "pod.drain", cmd_pod_drain },
	{ "pod.undrain", cmd_pod_undrain },
	{ "decision.tail", cmd_decision_tail },
	{ "decision.show", cmd_decision_show },
	{ "index.stats", cmd_index_stats },
	{ "index.lookup", cmd_index_lookup },
	{ "config.show", config_show },
	{ "flow.list", cmd_flow_list },
	{ "flow.show", cmd_flow_show },
	{ "flow.kill", cmd_flow_kill },
	{ "reload", reload },
	{ "drain", drain },
};
const unsigned agent_ncommands = sizeof(agent_commands) / sizeof(agent_commands[0]);
